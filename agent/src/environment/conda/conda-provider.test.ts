import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Environment_CondaSchema, EnvironmentSchema } from '@harrier/shared/gen/module';
import { afterAll, expect, test } from 'vitest';
import { EnvironmentBuilds, isRoot, recordedEvents, TOOLS_PATH } from '../../test-support/environment-builds.ts';
import type { EnvironmentRequest } from '../environment.ts';
import { Interpreters } from '../interpreters.ts';
import { findTool } from '../tools.ts';
import { uvInstaller } from '../venv/installer.ts';
import { createVenvProvider } from '../venv/venv-provider.ts';
import { createCondaProvider } from './conda-provider.ts';

// The real launcher, sandbox and solver, with a channel that this test makes.
const builds = await EnvironmentBuilds.start();
const directory = mkdtempSync(join(tmpdir(), 'channel-'));
chmodSync(directory, 0o755);
execFileSync('/usr/bin/python3', [join(import.meta.dirname, '../../../../test/fixtures/conda_channel.py'), directory]);
const channel = `file://${directory}`;
afterAll(async () => {
  await builds.stop();
  rmSync(directory, { recursive: true });
});

const uv = (await findTool('uv', TOOLS_PATH)) ?? '';
const indexes = { indexUrl: 'https://pypi.org/simple', allowed: [], allowExtra: false, fileHosts: [] };
const common = { store: builds.store, runs: builds.builds, indexes, unavailable: () => undefined };
const interpreters = new Interpreters(TOOLS_PATH, () => '/usr/bin/python3', isRoot);
const options = {
  ...common,
  uv,
  venv: createVenvProvider({ ...common, interpreters, installer: uvInstaller(uv) }),
  channels: { channels: ['conda-forge'], allowed: [channel] },
};
const conda = createCondaProvider(options);

const request = (value: MessageInitShape<typeof Environment_CondaSchema>): EnvironmentRequest => ({
  tenant: 'acme',
  environment: create(EnvironmentSchema, { kind: { case: 'conda', value: create(Environment_CondaSchema, value) } }),
  language: 'python',
  preload: [],
});
const never = new AbortController().signal;
const GREET = 'import greeter, sys\ndef handler(i): return {"says": greeter.greet("you"), "prefix": sys.prefix}\n';

test('packages of a channel are solved, installed, and found again', async () => {
  const wanted = request({ dependencies: ['python', 'greeter>=1'], channels: [channel] });
  expect(conda.prepared(wanted)).toBeUndefined();
  const told = recordedEvents();
  const prepared = await conda.prepare(wanted, told, never);
  expect(told.locks[0]).toMatch(/^@EXPLICIT\nfile:.*greeter-1\.2\.0-pyh0_0\.tar\.bz2#[0-9a-f]{64}\nfile:.*python-3\./);
  expect(told.text).toContain('installing 2 packages');
  expect(await builds.outcome(prepared, GREET)).toBe('succeeded {"says":"hello you","prefix":"/environment"}');
  const write = 'import greeter\ndef handler(i): open(greeter.__file__, "a")\n';
  expect(await builds.outcome(prepared, write)).toBe('failed HANDLER_ERROR');
  expect(conda.prepared(wanted)?.start?.key).toBe(prepared.start?.key);
  const lock = told.locks[0] ?? '';
  expect(await conda.resolve(request({ lock, channels: [channel] }), never)).toMatchObject({ held: true, lock });
  await expect(conda.prepare(request({ lock }), told, never)).rejects.toMatchObject({ code: Code.POLICY_DENIED });
});

test('an environment.yml with a pip section is installed', async () => {
  const file = `name: x\nchannels: ["${channel}"]\ndependencies:\n  - python\n  - pip:\n      - six==1.17.0\n`;
  const told = recordedEvents();
  const prepared = await conda.prepare(request({ file }), told, never);
  expect(told.locks[0]).toMatch(/\n# pip:\n# six==1\.17\.0/);
  expect(await builds.outcome(prepared, 'import six\ndef handler(i): return {"v": six.__version__}\n')).toBe(
    'succeeded {"v":"1.17.0"}',
  );
  expect(conda.prepared(request({ file }))?.start?.key).toBe(prepared.start?.key);
  const elsewhere = { ...indexes, indexUrl: 'https://other.example/simple' };
  expect(createCondaProvider({ ...options, indexes: elsewhere }).prepared(request({ file }))).toBeUndefined();
});

test.each([
  [
    'a package that there is not',
    { dependencies: ['python', 'no-such'], channels: [channel] },
    /No candidates were found for no-such/,
  ],
  ['a version that there is not', { dependencies: ['python=3.2'], channels: [channel] }, /python 3\.2/],
  ['no Python in it', { lock: 'x' }, /no plain package URL/],
  [
    'a broken file',
    { file: 'dependencies:\n  - python\n  - {a: 1}\n' },
    /environment\.yml line 3: a dependency must be/,
  ],
  ['a file that is no YAML', { file: 'dependencies: [python\nname: x' }, /environment\.yml line \d: /],
  [
    'an unknown key',
    { file: 'dependencies: [python]\npackages: []\n' },
    /environment\.yml line 2: "packages" is not known/,
  ],
])('%s fails with the reason', async (_, value, message) => {
  const failing = conda.prepare(request(value), recordedEvents(), never);
  await expect(failing).rejects.toMatchObject({
    code: Code.ENVIRONMENT_FAILED,
    message: expect.stringMatching(message),
  });
});

test.each([
  [
    'a channel that is not allowed',
    { dependencies: ['python'], channels: ['bioconda'] },
    /HARRIER_AGENT_ALLOWED_CHANNELS/,
  ],
  [
    'a directory of the host',
    { dependencies: ['python'], channels: ['file:///etc'] },
    /HARRIER_AGENT_ALLOWED_CHANNELS/,
  ],
  ['a way around', { dependencies: ['python'], channels: [`${channel}/../../etc`] }, /HARRIER_AGENT_ALLOWED_CHANNELS/],
  [
    'a hidden way around',
    { dependencies: ['python'], channels: [`${channel}/%2e%2e/%2e%2e/etc`] },
    /HARRIER_AGENT_ALLOWED_CHANNELS/,
  ],
  ['an encoded slash', { dependencies: ['python'], channels: [`${channel}/a%2f..`] }, /plain URL/],
  ['a name that leads elsewhere', { dependencies: ['python'], channels: ['conda-forge/../evil'] }, /ALLOWED_CHANNELS/],
])('%s is denied', async (_, value, message) => {
  const denied = conda.prepare(request(value), recordedEvents(), never);
  await expect(denied).rejects.toMatchObject({ code: Code.POLICY_DENIED, message: expect.stringMatching(message) });
});
