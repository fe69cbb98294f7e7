import { randomUUID } from 'node:crypto';
import { expect, onTestFinished, test, vi } from 'vitest';
import { lookAtLeases } from '../db/queries/lost-agents.ts';
import { silent, startDatabase } from '../test-support/real-database.ts';
import { ReplicaObserver } from './replica-observer.ts';
import { ReplicaRegistration } from './replica-registration.ts';

const { control: sql } = await startDatabase();
const LEASE_MS = 30_000;

async function register(name: string) {
  const onRevived = vi.fn();
  const id = randomUUID();
  const replica = new ReplicaRegistration({ sql, id, name, leaseMs: LEASE_MS, logger: silent, onRevived });
  expect(replica.valid).toBe(false);
  await replica.start();
  onTestFinished(() => replica.stop());
  return { replica, onRevived };
}

/** An agent that is linked to a replica. @returns its lease as the database has it */
async function linkAgent(replicaId: string) {
  const id = randomUUID();
  const tenant = randomUUID();
  await sql`INSERT INTO tenants (id, name) VALUES (${tenant}, ${tenant})`;
  await sql`INSERT INTO agents (id, tenant_id, name, public_key, version, hardware, isolation, slots, replica_id)
    VALUES (${id}, ${tenant}, 'a', ${Buffer.from(id)}, '', '', 0, 1, ${replicaId})`;
  return async () => {
    const [row] = await sql<{ replica_id: string | null; left_s: number | null }[]>`
      SELECT replica_id, extract(epoch FROM lease_end_time - now())::float8 AS left_s FROM agents WHERE id = ${id}`;
    return { replicaId: row?.replica_id, leftS: row?.left_s ?? undefined };
  };
}

test('replicas know of each other, and one that stops gives the leases of its agents an end', async () => {
  const { replica: first } = await register('first');
  expect(first).toMatchObject({ valid: true, alone: true });
  const { replica: second } = await register('second');
  expect(second.alone).toBe(false);
  first.look();
  await vi.waitFor(() => expect(first.alone).toBe(false));
  const agent = await linkAgent(second.id);
  expect(await agent()).toEqual({ replicaId: second.id, leftS: undefined });
  await second.stop();
  expect(second.valid).toBe(false);
  const { replicaId, leftS } = await agent();
  expect(replicaId).toBe(null);
  expect(leftS).toBeGreaterThan(20);
  expect(leftS).toBeLessThanOrEqual(31);
  first.look();
  await vi.waitFor(() => expect(first.alone).toBe(true));
});

/** Somebody who looks at the replicas, with a clock that the test moves. */
function observe() {
  let nowMs = 0;
  const observer = new ReplicaObserver(() => nowMs);
  return async (atMs: number) => {
    nowMs = atMs;
    observer.look((await lookAtLeases(sql, 0)).replicas, nowMs);
    return await observer.removeDead(sql, LEASE_MS);
  };
}

/** A replica that has died: its row stays as it is. */
async function addDead(name: string): Promise<string> {
  const id = randomUUID();
  await sql`INSERT INTO replicas (id, name) VALUES (${id}, ${name})`;
  return id;
}

test('one that is silent is removed; its agents keep their leases for as long as it may have renewed them', async () => {
  const agent = await linkAgent(await addDead('silent'));
  const lookAt = observe();
  expect(await lookAt(0)).toEqual([]);
  expect(await lookAt(9_999)).toEqual([]);
  expect(await agent()).toMatchObject({ leftS: undefined });
  expect(await lookAt(11_000)).toEqual(['silent']);
  const { replicaId, leftS } = await agent();
  expect(replicaId).toBe(null);
  expect(leftS).toBeGreaterThan(25);
  expect(leftS).toBeLessThanOrEqual(30);
});

test('one that goes on to write is not removed, also when the clock of the database is set', async () => {
  const id = await addDead('alive');
  const lookAt = observe();
  for (const [seconds, atMs] of [
    [0, 0],
    [-3600, 8_000],
    [3600, 16_000],
    [-3600, 24_000],
  ] as const) {
    await sql`UPDATE replicas SET beat_time = now() + ${seconds}::float8 * interval '1 second' WHERE id = ${id}`;
    expect(await lookAt(atMs)).toEqual([]);
  }
  expect(await lookAt(34_000)).toEqual(['alive']);
});

test('one that was taken for dead and is back is told so', async () => {
  const { replica, onRevived } = await register('slow');
  await sql`DELETE FROM replicas WHERE id = ${replica.id}`;
  replica.look();
  await vi.waitFor(() => expect(onRevived).toHaveBeenCalledTimes(1));
});

test('agents of a replica that left no row get an end of their lease too', async () => {
  const agent = await linkAgent(randomUUID());
  await observe()(0);
  const { replicaId, leftS } = await agent();
  expect(replicaId).toBe(null);
  expect(leftS).toBeGreaterThan(35);
});
