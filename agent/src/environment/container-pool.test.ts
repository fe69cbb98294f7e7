import { PassThrough } from 'node:stream';
import { create } from '@bufbuild/protobuf';
import { EnvironmentSchema } from '@harrier/shared/gen/module';
import { expect, onTestFinished, test, vi } from 'vitest';
import { ContainerBudget } from '../docker/container-budget.ts';
import type { DockerEngine } from '../docker/engine.ts';
import type { HeldImage } from '../docker/images.ts';
import { silentLogger } from '../test-support/silent-logger.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { ContainerPool } from './container-pool.ts';
import type { EnvironmentRequest } from './environment.ts';

const IMAGE: HeldImage = { id: 'sha256:1', lock: 'python:3', sizeBytes: 1, volumes: [] };
const never = new AbortController().signal;

function request(tenant: string, fields: Partial<EnvironmentRequest> = {}): EnvironmentRequest {
  return { tenant, preload: [], language: 'python', environment: create(EnvironmentSchema), ...fields };
}

interface Listed {
  name: string;
  key: string;
}

type OnExpect = (pool: ContainerPool, key: string) => void;

const attach: OnExpect = (pool, key) => pool.onAttached('acme', key);

/** A pool on an engine whose containers do nothing; `onExpect` is what the launcher tells of each. */
function stand(places: number, onExpect: OnExpect = attach, listed: readonly Listed[] = []) {
  const created: { HostConfig: { NanoCpus?: number; Memory: number } }[] = [];
  const removed: string[] = [];
  const retired: string[] = [];
  const exits = new Map<string, PromiseWithResolvers<void>>();
  const lost = new AbortController();
  /** What the engine does before it has removed a container. */
  const removal = { before: async (): Promise<void> => {} };
  const container = (name: string) => ({
    attach: async () => new PassThrough(),
    start: async () => {},
    wait: () => {
      const exit = exits.get(name) ?? Promise.withResolvers<void>();
      exits.set(name, exit);
      return exit.promise;
    },
    inspect: async () => ({ State: { FinishedAt: '', StartedAt: '', ExitCode: 0, OOMKilled: false } }),
    remove: async () => {
      await removal.before();
      removed.push(name);
    },
  });
  const docker = {
    createContainer: async (options: { name: string; HostConfig: { Memory: number } }) => {
      created.push(options);
      return container(options.name);
    },
    getContainer: container,
    listContainers: async () =>
      listed.map(({ name, key }) => ({
        Names: [`/${name}`],
        Labels: { 'harrier.key': key, 'harrier.tenant': 'former' },
      })),
  };
  const engine = {
    docker,
    facts: { version: '1', cpus: 4, appArmor: false, dataDir: '/srv/docker' },
    lost: lost.signal,
    unavailable: () => undefined,
    onChange: () => {},
  } as unknown as DockerEngine;
  const budget = new ContainerBudget(places);
  const pool: ContainerPool = new ContainerPool({
    ...{ engine, budget, dataDir: tempDir(), idleMs: 300_000, memoryBytes: 1e9, tmpBytes: 1e8 },
    removeAgainMs: 1,
    host: {
      replaced: Promise.resolve(),
      expectZygote: ({ key }) => {
        // As over the launcher's socket: later.
        setImmediate(() => onExpect(pool, key));
        return true;
      },
      retire: (_, key) => void retired.push(key),
    },
    logger: silentLogger(),
  });
  onTestFinished(() => pool.close());
  return { pool, budget, created, removed, removal, retired, exits };
}

test('a container serves whoever it was started for, also when others wait for its place', async () => {
  const { pool, created } = stand(1);
  const call = async (tenant: string): Promise<void> => {
    const held = await pool.get(request(tenant), IMAGE, never);
    held.release();
  };
  await Promise.all(['a', 'b', 'a', 'c'].map(call));
  expect(created.length).toBe(3);
});

test('a container leaves when those for whom it was started have given up, and somebody waits for its place', async () => {
  const keys: string[] = [];
  const expected = Promise.withResolvers<void>();
  const { pool } = stand(1, (_, key) => {
    expected.resolve();
    if (keys.push(key) > 1) attach(pool, key);
  });
  const given = new AbortController();
  const first = pool.get(request('a'), IMAGE, given.signal);
  first.catch(() => {});
  await expected.promise;
  const second = pool.get(request('b'), IMAGE, never);
  given.abort(new Error('no longer wanted'));
  await expect(first).rejects.toThrow('no longer wanted');
  attach(pool, keys[0] ?? '');
  (await second).release();
});

test('a container whose interpreter ends in the moment in which it is ready is given to nobody', async () => {
  const { pool } = stand(1, (_, key) => {
    attach(pool, key);
    pool.onDetached(key, 'it ended');
  });
  await expect(pool.get(request('a'), IMAGE, never)).rejects.toThrow('ended at once');
  expect(pool.find(request('a'), IMAGE)).toBeUndefined();
});

test('a container of a former agent keeps its place until it has ended, and takes no calls', async () => {
  const listed = [{ name: 'old', key: 'docker-old' }];
  const { pool, budget, exits, retired, removed } = stand(1, attach, listed);
  pool.onLauncher(1);
  await vi.waitUntil(() => exits.has('old'));
  // A new launcher, or an engine that is back, makes the agent look again.
  pool.onLauncher(2);
  await vi.waitUntil(() => retired.length === 2);
  expect(budget.used).toBe(1);
  const waiting = pool.get(request('a'), IMAGE, never);
  exits.get('old')?.resolve();
  (await waiting).release();
  expect(removed).toEqual(['old']);
});

test('an interpreter that comes to a launcher for an agent that does not know it is retired', () => {
  const { pool, retired } = stand(1);
  pool.onAttached('acme', 'docker-unknown');
  expect(retired).toEqual(['docker-unknown']);
});

test('calls with a limit of processors have a container with that limit, and those without share one', async () => {
  const { pool, created } = stand(8);
  for (const cpu of [0, 0.5, 0.5, 4, 16, 2]) (await pool.get(request('a', { cpu }), IMAGE, never)).release();
  expect(created.map(({ HostConfig }) => HostConfig.NanoCpus)).toEqual([undefined, 0.5e9, 2e9]);
});

test('a call with cards has a container of its own that sees them, and leaves with it', async () => {
  const { pool, created, removed } = stand(4);
  const wanted = request('acme', { gpuUuids: ['GPU-a'] });
  const first = await pool.get(wanted, IMAGE, never);
  expect(pool.find(wanted, IMAGE), 'no other call may have it').toBeUndefined();
  const second = await pool.get(request('acme'), IMAGE, never);
  expect(second.start?.key).not.toBe(first.start?.key);
  expect(created).toMatchObject([{ HostConfig: { DeviceRequests: [{ DeviceIDs: ['GPU-a'] }] } }, {}]);
  expect(created[1]?.HostConfig).not.toHaveProperty('DeviceRequests');
  first.release();
  await vi.waitFor(() => expect(removed).toHaveLength(1));
  second.release();
  expect(pool.find(request('acme'), IMAGE), 'the other one is warm').toBeDefined();
});

/** A container for a call with cards, and whether it has them. */
function withCards(pool: ContainerPool, signal: AbortSignal) {
  const taken = Promise.withResolvers<void>();
  const facts = { taken: false, gone: false };
  const got = pool.get(request('acme', { gpuUuids: ['GPU-a'] }), IMAGE, signal, (gone) => {
    facts.taken = true;
    void gone.then(() => {
      facts.gone = true;
    });
    taken.resolve();
  });
  got.catch(() => {});
  return { got, facts, taken: taken.promise };
}

test('a container with cards leaves at once with the call that is given up, and is gone when it is removed', async () => {
  const expected = Promise.withResolvers<void>();
  const { pool, budget, removed, removal } = stand(4, () => expected.resolve());
  const removing = Promise.withResolvers<void>();
  const mayRemove = Promise.withResolvers<void>();
  removal.before = () => {
    removing.resolve();
    return mayRemove.promise;
  };
  const given = new AbortController();
  const { got, facts, taken } = withCards(pool, given.signal);
  await Promise.all([taken, expected.promise]);
  given.abort(new Error('no longer wanted'));
  await expect(got).rejects.toThrow('no longer wanted');
  await removing.promise;
  expect(facts).toEqual({ taken: true, gone: false });
  mayRemove.resolve();
  await vi.waitFor(() => expect(facts.gone).toBe(true));
  expect([removed.length, budget.used]).toEqual([1, 0]);
});

test('a call with cards that is given up before its container has a place takes none', async () => {
  const { pool, created } = stand(1);
  const first = await pool.get(request('a'), IMAGE, never);
  const given = new AbortController();
  const { got, facts } = withCards(pool, given.signal);
  given.abort(new Error('no longer wanted'));
  await expect(got).rejects.toThrow('no longer wanted');
  first.release();
  (await pool.get(request('b'), IMAGE, never)).release();
  expect([facts.taken, created.length]).toEqual([false, 2]);
});

test('a container with cards is removed until that has worked, and they are taken until then', async () => {
  const { pool, removed, removal } = stand(4);
  const { got, facts } = withCards(pool, never);
  const held = await got;
  let fails = 2;
  removal.before = async () => {
    if (fails-- === 0) return;
    expect(facts.gone).toBe(false);
    throw new Error('the driver failed to remove the root file system');
  };
  expect(facts).toEqual({ taken: true, gone: false });
  held.release();
  await vi.waitFor(() => expect(facts.gone).toBe(true));
  expect([removed.length, fails]).toEqual([1, -1]);
});
