import { randomUUID } from 'node:crypto';
import { expect, onTestFinished, test, vi } from 'vitest';
import { removeDeadReplicas } from '../db/queries/replicas.ts';
import { silent, startDatabase } from '../test-support/real-database.ts';
import { orphanedLeaseMs, REPLICA_VALID_MS } from './lease-rules.ts';
import { ReplicaRegistration } from './replica-registration.ts';

const { control: sql } = await startDatabase();
const LEASE_MS = 30_000;
const DEAD = { validMs: REPLICA_VALID_MS, leaseMs: orphanedLeaseMs(LEASE_MS) };

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

test('one that is silent is removed; its agents keep their leases for as long as it may have renewed them', async () => {
  const { replica } = await register('silent');
  const agent = await linkAgent(replica.id);
  expect(await removeDeadReplicas(sql, DEAD)).toEqual([]);
  await sql`UPDATE replicas SET beat_time = now() - interval '11 seconds' WHERE id = ${replica.id}`;
  expect(await removeDeadReplicas(sql, DEAD)).toEqual(['silent']);
  const { replicaId, leftS } = await agent();
  expect(replicaId).toBe(null);
  expect(leftS).toBeGreaterThan(25);
  expect(leftS).toBeLessThanOrEqual(30);
});

test('one that was taken for dead and is back is told so', async () => {
  const { replica, onRevived } = await register('slow');
  await sql`DELETE FROM replicas WHERE id = ${replica.id}`;
  replica.look();
  await vi.waitFor(() => expect(onRevived).toHaveBeenCalledTimes(1));
});

test('agents of a replica that left no row get an end of their lease too', async () => {
  const agent = await linkAgent(randomUUID());
  await removeDeadReplicas(sql, DEAD);
  const { replicaId, leftS } = await agent();
  expect(replicaId).toBe(null);
  expect(leftS).toBeGreaterThan(35);
});
