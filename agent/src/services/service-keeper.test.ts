import type { RequestListener } from 'node:http';
import { text } from 'node:stream/consumers';
import { ManagedService_State as State } from '@harrier/shared/gen/agent';
import { expect, onTestFinished, test, vi } from 'vitest';
import { silentLogger } from '../test-support/silent-logger.ts';
import { standInEngine } from '../test-support/stand-in-engine.ts';
import { gpuProblem } from './gpu-problem.ts';
import { DEFAULTS } from './read-service.ts';
import type { ServiceDefinition } from './service-definition.ts';
import { ServiceEngine } from './service-engine.ts';
import { ServiceKeeper } from './service-keeper.ts';

const UNKNOWN = 'MIG-1 may be given to executions: nvidia-smi has not said yet whose parts the MIG instances are';
const SHARED = 'MIG-1 is given to executions: leave out of HARRIER_AGENT_GPUS what a service has';

function model(fields: Partial<ServiceDefinition> = {}): ServiceDefinition {
  return { ...DEFAULTS, name: 'model', image: 'model:1', gpus: ['MIG-1'], ...fields };
}

/** The keeper of a service on an engine that keeps containers; whether `MIG-1` is shared is what the test says. */
async function keeperWith(isShared: boolean | undefined) {
  const gpus = { isShared };
  const containers = new Map<string, { labels: Record<string, string>; status: string }>();
  const seen = { made: 0, lists: 0 };
  const answer: RequestListener = async (request, response) => {
    const { pathname } = new URL(request.url ?? '', 'http://engine');
    const body = await text(request);
    const end = (value: unknown) => {
      response.setHeader('content-type', 'application/json').end(JSON.stringify(value));
    };
    if (pathname === '/containers/json') {
      seen.lists++;
      return end([...containers].map(([Id, { labels }]) => ({ Id, Labels: labels })));
    }
    if (pathname === '/containers/create') {
      const id = `c${++seen.made}`;
      containers.set(id, { labels: JSON.parse(body).Labels, status: 'created' });
      return end({ Id: id });
    }
    const [, , id = '', operation] = pathname.split('/');
    const container = containers.get(id);
    if (container === undefined) return response.writeHead(404).end('{}');
    if (request.method === 'DELETE') containers.delete(id);
    if (operation === 'start') container.status = 'running';
    if (operation === 'stop') container.status = 'exited';
    const [StartedAt, FinishedAt] = ['2026-01-01T00:00:00Z', '0001-01-01T00:00:00Z'];
    const state = { Status: container.status, ExitCode: 0, StartedAt, FinishedAt };
    return end({ State: state, Config: { Labels: container.labels } });
  };
  const { engine } = await standInEngine(answer);
  const keeper = new ServiceKeeper({
    name: 'model',
    environment: 'default',
    engine: new ServiceEngine(engine, '/var/lib/agent', () => {}),
    images: { ensure: async () => ({ id: 'sha256:1', lock: 'sha256:1', sizeBytes: 1, volumes: [] }) },
    engineProblem: () => engine.unavailable(),
    gpuProblem: (uuids) => gpuProblem(uuids, () => gpus.isShared),
    events: { onStarted: () => {}, onStopped: () => {} },
    onChange: () => {},
    onGone: () => {},
    logger: silentLogger(),
  });
  onTestFinished(() => keeper.close());
  const until = async (state: State, message: unknown) => {
    await vi.waitFor(() => expect(keeper.report()).toMatchObject({ state, message }));
  };
  return { keeper, gpus, containers, seen, until };
}

test('a service is started when its GPUs are known to be its own, and not before', async () => {
  const { keeper, gpus, seen, until } = await keeperWith(undefined);
  keeper.want(model());
  await until(State.FAILED, expect.stringContaining(UNKNOWN));
  expect(seen.made).toBe(0);
  gpus.isShared = false;
  keeper.gpusChanged();
  await until(State.RUNNING, '');
  expect(seen.made).toBe(1);
});

test('it is not started with what executions get', async () => {
  const { keeper, gpus, seen, until } = await keeperWith(undefined);
  keeper.want(model());
  await until(State.FAILED, expect.stringContaining(UNKNOWN));
  gpus.isShared = true;
  keeper.gpusChanged();
  await until(State.FAILED, SHARED);
  await keeper.close();
  expect(seen.made).toBe(0);
});

test('one that wants no GPU waits for nothing', async () => {
  const { keeper, until } = await keeperWith(undefined);
  keeper.want(model({ gpus: [] }));
  await until(State.RUNNING, '');
});

test('what runs goes on, and has no successor, until its GPUs are known to be its own', async () => {
  const { keeper, gpus, containers, until } = await keeperWith(false);
  keeper.want(model());
  await until(State.RUNNING, '');
  gpus.isShared = undefined;
  keeper.want(model({ env: { A: '1' } }));
  await until(State.RUNNING, expect.stringContaining(`it goes on as it is: ${UNKNOWN}`));
  expect([...containers.keys()]).toEqual(['c1']);
  gpus.isShared = true;
  keeper.gpusChanged();
  await until(State.RUNNING, `it goes on as it is: ${SHARED}`);
  expect([...containers.keys()]).toEqual(['c1']);
  gpus.isShared = false;
  keeper.gpusChanged();
  await vi.waitFor(() => expect([...containers.keys()]).toEqual(['c2']));
  await until(State.RUNNING, '');
});

test('it ends when it has left the file, whatever is known of its GPUs', async () => {
  const { keeper, gpus, containers, until } = await keeperWith(false);
  keeper.want(model());
  await until(State.RUNNING, '');
  gpus.isShared = undefined;
  keeper.want(undefined);
  await vi.waitFor(() => expect(containers.size).toBe(0));
});

test('the engine is not asked for a change of GPUs that concerns no GPU of the service', async () => {
  const { keeper, gpus, seen, until } = await keeperWith(undefined);
  keeper.want(model());
  await until(State.FAILED, expect.stringContaining(UNKNOWN));
  const { lists } = seen;
  keeper.gpusChanged();
  await keeper.close();
  expect(seen.lists).toBe(lists);
  expect(gpus.isShared).toBeUndefined();
});
