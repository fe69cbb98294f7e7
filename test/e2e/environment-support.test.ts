import { create as message } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { ExecutionError_Code as ErrorCode } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { EnvironmentSupportSchema } from '@harrier/shared/gen/link';
import { EnvironmentSchema, LimitsSchema } from '@harrier/shared/gen/module';
import { afterAll, expect, test } from 'vitest';
import { ControlPlane } from '../support/control-plane.ts';
import { create, execute, get, untilState } from '../support/executions.ts';
import { RawIdentity, RawLink } from '../support/raw-link.ts';
import { code, moduleCall } from '../support/requests.ts';
import { until } from '../support/wait.ts';

// The agent is only a WebSocket: what the control plane makes of what an agent says it can prepare.
const controlPlane = await ControlPlane.start();
const { clients } = controlPlane;
const { executions, modules } = clients;
const HANDLER = 'def handler(input):\n    return {}\n';
const venv = message(EnvironmentSchema, { kind: { case: 'venv', value: { requirements: ['six'] } } });
const docker = message(EnvironmentSchema, { kind: { case: 'docker', value: { image: 'python:3.13' } } });

const identity = new RawIdentity();
const support = (available: string[], unavailable: Record<string, string> = {}) =>
  message(EnvironmentSupportSchema, { available, unavailable });
const link = await RawLink.join(controlPlane.url, identity, {
  joinToken: await controlPlane.joinToken(),
  slots: 8,
  environments: support(['inline', 'venv'], { docker: 'no Docker engine answers at /run/docker.sock' }),
});
afterAll(async () => {
  link.close();
  await controlPlane.stop();
});

const inDocker = { target: { case: 'code', value: { source: HANDLER, environment: docker } } } as const;

test('what no agent has ends at once, with the reason of every agent', async () => {
  const execution = await execute(executions, inDocker);
  expect(execution).toMatchObject({
    state: State.FAILED,
    attempt: 0,
    error: {
      code: ErrorCode.NO_ELIGIBLE_AGENT,
      message: 'no agent can run this: raw: no environment "docker": no Docker engine answers at /run/docker.sock',
      details: { agents: { raw: 'no environment "docker": no Docker engine answers at /run/docker.sock' } },
    },
  });
  expect((await get(executions, execution.id)).state).toBe(State.FAILED);
});

test('Node.js in the sandbox needs an agent that has it', async () => {
  const value = { source: 'exports.handler = () => ({})', language: 'nodejs' };
  const { error } = await execute(executions, { target: { case: 'code', value } });
  expect(error).toMatchObject({
    code: ErrorCode.NO_ELIGIBLE_AGENT,
    message: expect.stringContaining('has no environment "nodejs"'),
  });
});

test('an agent tells with a heartbeat what it can prepare by now, and what waits is run', async () => {
  const { agents } = await clients.agents.listAgents({});
  expect(agents[0]).toMatchObject({
    environments: ['inline', 'venv'],
    unavailableEnvironments: { docker: 'no Docker engine answers at /run/docker.sock' },
  });
  link.send({ case: 'heartbeat', value: { environments: support(['inline', 'venv', 'docker']) } });
  await until('the agent to have docker', async () => {
    const { agent } = await clients.agents.getAgent({ id: identity.agentId });
    return agent?.environments.includes('docker');
  });
  const id = await create(executions, inDocker);
  const { ref, environment } = await link.next('assignment');
  expect(ref?.executionId).toBe(id);
  expect(environment?.kind).toMatchObject({ case: 'docker', value: { image: 'python:3.13' } });
  link.send({ case: 'preparing', value: { ref: { executionId: id, attempt: 1 } } });
  await untilState(executions, id, State.PREPARING);
  await executions.cancelExecution({ id });
});

test('the lock that is found first is what every later attempt installs on its platform', async () => {
  await modules.createModule({ module: { name: 'locked', version: '1.0.0', code: HANDLER, environment: venv } });
  const told: object[] = [];
  const decided: string[] = [];
  for (const [platform, lock] of [
    ['cp312-x86_64', 'six==1.17.0'],
    ['cp312-x86_64', 'six==1.16.0'],
    ['cp312-aarch64', 'six==1.15.0'],
  ] as const) {
    const id = await create(executions, moduleCall('locked'));
    const { environment, decidedLocks } = await link.next('assignment');
    // What the caller has written stays what it is.
    expect(environment?.kind.value).toMatchObject({ requirements: ['six'], lock: '' });
    told.push(decidedLocks);
    link.send({ case: 'lockFound', value: { ref: { executionId: id, attempt: 1 }, lock, platform } });
    decided.push((await link.next('lockDecided')).lock);
    await executions.cancelExecution({ id });
  }
  expect(told).toEqual([{}, { 'cp312-x86_64': 'six==1.17.0' }, { 'cp312-x86_64': 'six==1.17.0' }]);
  expect(decided).toEqual(['six==1.17.0', 'six==1.17.0', 'six==1.15.0']);
  const { module } = await modules.getModule({ name: 'locked' });
  expect(module?.environment?.kind).toMatchObject({
    case: 'venv',
    value: { requirements: ['six'], lock: 'six==1.17.0' },
  });
  // The lock is not part of what was registered: the same content is still the same version.
  const again = await modules.createModule({
    module: { name: 'locked', version: '1.0.0', code: HANDLER, environment: venv },
  });
  expect(again.module?.digest).toBe(module?.digest);
});

test('a module is validated by an agent without being registered', async () => {
  const module = { name: 'unseen', version: '1.0.0', code: HANDLER, environment: venv };
  const asked = modules.validateModule({ module });
  const { id, environment, language } = await link.next('resolve');
  expect(language).toBe('python');
  expect(environment?.kind).toMatchObject({ case: 'venv', value: { requirements: ['six'] } });
  link.send({ case: 'resolved', value: { id, lock: 'six==1.17.0', sizeBytes: 11_000n, held: true } });
  expect(await asked).toMatchObject({
    lock: 'six==1.17.0',
    sizeBytes: 11_000n,
    agents: [{ agentId: identity.agentId, name: 'raw', held: true, reason: '' }],
  });
  await expect(modules.getModule({ name: 'unseen' })).rejects.toMatchObject({ code: Code.NotFound });
});

test('what a resolver says of a module that it cannot resolve is in the answer', async () => {
  const body = {
    name: 'x',
    version: '1.0.0',
    code: HANDLER,
    environment: { venv: { requirements: ['no-such-thing'] } },
  };
  const asked = clients.rest('POST', '/modules/validate', body);
  const { id } = await link.next('resolve');
  const error = { code: ErrorCode.ENVIRONMENT_FAILED, message: 'no-such-thing was not found in the package index' };
  link.send({ case: 'resolved', value: { id, error } });
  const { status, json } = await asked;
  expect(status).toBe(200);
  expect(json).toMatchObject({
    error: { code: 'ENVIRONMENT_FAILED', message: 'no-such-thing was not found in the package index' },
    agents: [{ name: 'raw' }],
  });
});

test('what would not be registered is not valid either', async () => {
  const module = { name: 'x', version: '1.0.0', code: 'x = 1' };
  await expect(modules.validateModule({ module })).rejects.toMatchObject({ code: Code.InvalidArgument });
  const inConda = message(EnvironmentSchema, { kind: { case: 'conda', value: { dependencies: ['python'] } } });
  const answer = await modules.validateModule({ module: { ...module, code: HANDLER, environment: inConda } });
  expect(answer).toMatchObject({ lock: '', agents: [{ name: 'raw', reason: 'has no environment "conda"' }] });
});

test('a lock for code that is not registered is the one that its agent has found', async () => {
  const value = { source: HANDLER, environment: venv };
  const id = await create(executions, { target: { case: 'code', value } });
  await link.next('assignment');
  link.send({ case: 'lockFound', value: { ref: { executionId: id, attempt: 1 }, lock: 'six==1.15.0' } });
  expect((await link.next('lockDecided')).lock).toBe('six==1.15.0');
  await executions.cancelExecution({ id });
});

test('an agent that is away is waited for', async () => {
  const away = new RawIdentity();
  const joinToken = await controlPlane.joinToken();
  const conda = await RawLink.join(controlPlane.url, away, {
    name: 'away',
    joinToken,
    environments: support(['conda']),
  });
  conda.close();
  await until('it to be away', async () => {
    const { agent } = await clients.agents.getAgent({ id: away.agentId });
    return agent?.linkTime !== undefined && agent.state === 3;
  });
  const environment = message(EnvironmentSchema, { kind: { case: 'conda', value: { dependencies: ['python'] } } });
  const id = await create(executions, { target: { case: 'code', value: { source: HANDLER, environment } } });
  expect(await get(executions, id)).toMatchObject({
    state: State.PENDING,
    waitingReason: expect.stringContaining('raw: has no environment "conda"'),
  });
  await executions.cancelExecution({ id });
});

test.each([
  [
    'hosts without EGRESS',
    { ...code(HANDLER), limits: message(LimitsSchema, { egressHosts: ['a.example'] }) },
    'limits.egress_hosts',
  ],
  ['an image that is none', { target: { case: 'image', value: { image: 'a b' } } }, 'image.image'],
  ['Go in the sandbox', { target: { case: 'code', value: { source: 'x', language: 'go' } } }, 'code.language'],
] as const)('refuses %s', async (_, request, field) => {
  const refused = await executions.createExecution(request).catch((error: unknown) => ConnectError.from(error));
  expect(refused).toMatchObject({ code: Code.InvalidArgument, rawMessage: expect.stringContaining(field) });
});
