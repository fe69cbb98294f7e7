import { create } from '@bufbuild/protobuf';
import { EnvironmentSchema } from '@harrier/shared/gen/module';
import { expect, test, vi } from 'vitest';
import { ManualProvider } from '../test-support/manual-provider.ts';
import { EnvironmentRegistry } from './environment-registry.ts';
import { InlineEnvironment } from './inline-environment.ts';

function setUp() {
  const onSupportChange = vi.fn();
  const registry = new EnvironmentRegistry(onSupportChange);
  const venv = new ManualProvider();
  registry.add(new InlineEnvironment());
  registry.add(venv);
  return { registry, venv, onSupportChange };
}

/** A request for code of a language in a kind of environment. */
function request(kind: 'inline' | 'venv' | 'docker', language = 'python') {
  return { environment: create(EnvironmentSchema, { kind: { case: kind, value: {} } }), language };
}

test('what cannot be prepared is told with its reason', () => {
  const { registry, venv } = setUp();
  expect(registry.tell()).toEqual({ available: ['inline', 'venv'], unavailable: {} });
  venv.reason = 'uv is not there';
  expect(registry.tell()).toEqual({ available: ['inline'], unavailable: { venv: 'uv is not there' } });
});

test('a change is told once', () => {
  const { registry, venv, onSupportChange } = setUp();
  venv.reason = 'uv is not there';
  registry.supportChanged();
  expect(onSupportChange, 'before anything was told').not.toHaveBeenCalled();
  registry.tell();
  registry.supportChanged();
  expect(onSupportChange).not.toHaveBeenCalled();
  expect(registry.tellChange()).toBeUndefined();
  venv.reason = undefined;
  registry.supportChanged();
  expect(onSupportChange).toHaveBeenCalledTimes(1);
  expect(registry.tellChange()).toEqual({ available: ['inline', 'venv'], unavailable: {} });
  expect(registry.tellChange()).toBeUndefined();
});

test('a provider is found while it can prepare', () => {
  const { registry, venv } = setUp();
  expect(registry.find(request('venv'))).toEqual({ provider: venv });
  venv.reason = 'uv is not there';
  expect(registry.find(request('venv'))).toEqual({ reason: 'no environment "venv" on this agent: uv is not there' });
  expect(registry.find(request('docker'))).toEqual({ reason: 'this agent has no environment "docker"; it has inline' });
});

test.each([
  ['inline', 'python', 'has inline'],
  ['inline', '', 'has inline'],
  ['inline', 'nodejs', 'this agent has no environment "nodejs"; it has inline, venv'],
  ['venv', 'nodejs', 'has venv'],
] as const)('%s for %j', (kind, language, expected) => {
  const found = setUp().registry.find(request(kind, language));
  expect('reason' in found ? found.reason : `has ${found.provider.kind}`).toBe(expected);
});

test('inline is always there, with nothing to lock', async () => {
  const inline = new InlineEnvironment();
  expect([inline.unavailable(), inline.prepared().start]).toEqual([undefined, undefined]);
  expect(await inline.resolve()).toEqual({ lock: '', platform: '', sizeBytes: 0, held: true });
});
