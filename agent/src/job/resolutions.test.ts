import { create } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { type AgentMessage, ResolveSchema } from '@harrier/shared/gen/link';
import { expect, test } from 'vitest';
import { EnvironmentError, type ResolvedEnvironment } from '../environment/environment.ts';
import { EnvironmentRegistry } from '../environment/environment-registry.ts';
import { ManualProvider } from '../test-support/manual-provider.ts';
import { silentLogger } from '../test-support/silent-logger.ts';
import { Resolutions } from './resolutions.ts';

function setUp() {
  const provider = new ManualProvider();
  const environments = new EnvironmentRegistry(() => {});
  environments.add(provider);
  const sent: AgentMessage['message'][] = [];
  const send = ({ message }: AgentMessage) => sent.push(message);
  const resolutions = new Resolutions({ environments, send, logger: silentLogger() });
  return { provider, sent, resolutions };
}

function question(kind: 'venv' | 'conda' = 'venv') {
  return create(ResolveSchema, { id: 'q', tenant: 'acme', environment: { kind: { case: kind, value: {} } } });
}

test('what was found is answered', async () => {
  const { resolutions, sent } = setUp();
  await resolutions.answer(question());
  expect(sent).toMatchObject([
    { case: 'resolved', value: { id: 'q', lock: 'six==1.17.0', sizeBytes: 11_053n, held: false } },
  ]);
});

test.each([
  [
    new EnvironmentError(Code.POLICY_DENIED, 'the index is not allowed'),
    Code.POLICY_DENIED,
    'the index is not allowed',
  ],
  [new TypeError('defect'), Code.INTERNAL, 'the environment could not be resolved: defect'],
])('why nothing was found is answered: %s', async (error, code, message) => {
  const { resolutions, sent, provider } = setUp();
  provider.resolved = Promise.reject(error);
  await resolutions.answer(question());
  expect(sent).toMatchObject([{ case: 'resolved', value: { id: 'q', lock: '', error: { code, message } } }]);
});

test('an environment that this agent does not have is answered with the reason', async () => {
  const { resolutions, sent } = setUp();
  await resolutions.answer(question('conda'));
  const message = 'this agent has no environment "conda"; it has venv';
  expect(sent).toMatchObject([{ value: { id: 'q', error: { code: Code.ENVIRONMENT_FAILED, message } } }]);
});

test('a link that is lost ends what was asked on it, and not what is asked on the next', async () => {
  const { resolutions, sent, provider } = setUp();
  const first = Promise.withResolvers<ResolvedEnvironment>();
  provider.resolved = first.promise;
  const answered = resolutions.answer(question());
  const signal = provider.resolveSignal;
  resolutions.linkDown();
  expect(signal?.aborted).toBe(true);
  first.reject(signal?.reason);
  await answered;
  expect(sent).toEqual([]);
  provider.resolved = Promise.resolve({ lock: 'image@sha256:0', platform: '', sizeBytes: 0, held: true });
  await resolutions.answer(question());
  expect(sent).toMatchObject([{ value: { lock: 'image@sha256:0', held: true } }]);
});
