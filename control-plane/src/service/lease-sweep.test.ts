import { randomUUID } from 'node:crypto';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { listBrakedAgents, lookAtLeases } from '../db/queries/lost-agents.ts';
import { silent, startDatabase } from '../test-support/real-database.ts';
import { insertExecution } from '../test-support/stored-executions.ts';
import { LeaseSweep } from './lease-sweep.ts';
import type { ResolvedExecution } from './resolved-execution.ts';

const { control: sql } = await startDatabase();
const tenantId = randomUUID();
await sql`INSERT INTO tenants (id, name) VALUES (${tenantId}, 'tenant')`;

beforeEach(async () => {
  await sql`DELETE FROM executions`;
  await sql`DELETE FROM agents`;
});
const sweeps: LeaseSweep[] = [];
afterEach(async () => {
  await Promise.all(sweeps.splice(0).map((sweep) => sweep.stop()));
});

/** An agent with an attempt. @param lease seconds from now until it ends; undefined: it is linked */
async function busyAgent(name: string, lease: number | undefined, tenant = tenantId): Promise<string> {
  const id = randomUUID();
  await sql`INSERT INTO agents (id, tenant_id, name, public_key, version, hardware, isolation, slots, replica_id, lease_end_time)
    VALUES (${id}, ${tenant}, ${name}, ${Buffer.from(id)}, '', '', 0, 1, ${lease === undefined ? replica : null},
      ${lease === undefined ? null : sql`now() + ${lease}::float8 * interval '1 second'`})`;
  await insertExecution(sql, { tenant_id: tenant, state: State.RUNNING, attempt: 1, agent_id: id });
  return id;
}

const replica = randomUUID();
await sql`INSERT INTO replicas (id, name, beat_time) VALUES (${replica}, 'this', now() + interval '1 day')`;

function start(brakeMs = 300_000, leftMs?: number, graceMs = 0, onEnded?: (agentId: string) => Promise<unknown>) {
  const ended: { agentId: string; reason: string }[] = [];
  const onReplicaGone = vi.fn();
  const endAttempts = vi.fn(async (agentId: string, reason: string, left: (attempt: ResolvedExecution) => number) => {
    const adHoc = { program: { kind: 'code' } } as unknown as ResolvedExecution;
    expect(left(adHoc)).toBe(0);
    ended.push({ agentId, reason });
    await onEnded?.(agentId);
    if (leftMs !== undefined) return leftMs;
    await sql`UPDATE executions SET end_time = now() WHERE agent_id = ${agentId}`;
    return undefined;
  });
  const sweep = new LeaseSweep({ sql, leaseMs: 30_000, brakeMs, graceMs, logger: silent, endAttempts, onReplicaGone });
  sweeps.push(sweep);
  sweep.start();
  return { sweep, ended, endAttempts, onReplicaGone };
}

test('an agent whose lease has ended loses its attempts, with the reason; others keep theirs', async () => {
  const gone = await busyAgent('gone', -1);
  await busyAgent('linked', undefined);
  await busyAgent('leaving', 20);
  const { ended } = start();
  await vi.waitFor(() => expect(ended).toHaveLength(1));
  expect(ended).toEqual([{ agentId: gone, reason: 'agent gone was not linked for longer than its lease of 30 s' }]);
});

test('an agent that is linked while those before it are ended keeps its attempts', async () => {
  for (const name of ['a', 'b', 'c']) await busyAgent(name, -2);
  const { sweep, ended } = start(1_000, undefined, 0, async (agentId) => {
    await sql`UPDATE agents SET replica_id = ${replica}, lease_end_time = NULL WHERE id <> ${agentId}`;
  });
  await vi.waitFor(() => expect(ended).toHaveLength(1));
  await sweep.stop();
  expect(ended).toHaveLength(1);
  expect(await sql`SELECT name FROM agents WHERE lost_time IS NOT NULL AND replica_id IS NOT NULL`).toEqual([]);
});

test('the end of a lease is not missed', async () => {
  const leaving = await busyAgent('leaving', 0.3);
  const { ended } = start();
  await vi.waitFor(() => expect(ended.map(({ agentId }) => agentId)).toEqual([leaving]));
});

test('agents may come back first when there was nobody that they could have told anything', async () => {
  const gone = await busyAgent('gone', -100);
  const back = await busyAgent('back', -100);
  const { ended } = start(300_000, undefined, 5_000);
  await sql`UPDATE agents SET replica_id = ${replica}, lease_end_time = NULL WHERE id = ${back}`;
  await vi.waitFor(() => expect(ended.map(({ agentId }) => agentId)).toEqual([gone]));
});

test('attempts of a deleted agent are ended by whoever looks', async () => {
  const id = await busyAgent('deleted', -1);
  await sql`DELETE FROM agents`;
  const { ended } = start();
  await vi.waitFor(() => expect(ended).toEqual([{ agentId: id, reason: 'the agent was deleted' }]));
});

test('an agent that has never been linked since leases are recorded gets one first', async () => {
  const id = await busyAgent('old', -1);
  await sql`UPDATE agents SET lease_end_time = NULL`;
  const { ended } = start();
  await vi.waitFor(async () => {
    const [row] = await sql<{ left: number }[]>`
      SELECT extract(epoch FROM lease_end_time - now())::float8 AS left FROM agents WHERE id = ${id}`;
    expect(row?.left).toBeGreaterThan(25);
  });
  expect(ended).toEqual([]);
});

test('when most agents have gone at once their work is kept, until most are back', async () => {
  const ids = [await busyAgent('a', -1), await busyAgent('b', -2), await busyAgent('c', -3)];
  const { sweep, ended } = start();
  await vi.waitFor(() => expect([...sweep.held.keys()].toSorted()).toEqual(ids.toSorted()));
  expect(ended).toEqual([]);
  const shown = async () => (await listBrakedAgents(sql)).map(({ name }) => name).toSorted();
  await vi.waitFor(async () => expect(await shown()).toEqual(['a', 'b', 'c']));
  await sql`UPDATE agents SET replica_id = ${replica}, lease_end_time = NULL WHERE name <> 'a'`;
  await vi.waitFor(() => expect(ended.map(({ agentId }) => agentId)).toEqual([ids[0]]));
  expect(sweep.held.size).toBe(0);
  expect(await shown()).toEqual([]);
});

test('agents of one tenant that go at once keep the work of no other tenant', async () => {
  const other = randomUUID();
  await sql`INSERT INTO tenants (id, name) VALUES (${other}, 'other')`;
  const ids = [await busyAgent('a', -1), await busyAgent('b', -1), await busyAgent('c', -1)];
  const alone = await busyAgent('alone', -1, other);
  const { sweep, ended } = start();
  await vi.waitFor(() => expect(ended.map(({ agentId }) => agentId)).toEqual([alone]));
  expect([...sweep.held.keys()].toSorted()).toEqual(ids.toSorted());
});

test('what another replica has held is not held any more when the one that looks now does not', async () => {
  await busyAgent('released', undefined);
  await sql`UPDATE agents SET brake_end_time = now() + interval '1 hour'`;
  start();
  await vi.waitFor(async () => expect(await listBrakedAgents(sql)).toEqual([]));
});

test('work is not kept for longer than the brake may hold', async () => {
  await Promise.all(['a', 'b', 'c'].map((name) => busyAgent(name, -2)));
  const { ended } = start(1_000);
  await vi.waitFor(() => expect(ended).toHaveLength(3));
});

test('an agent whose attempts may run on is not looked at all the time', async () => {
  await busyAgent('kept', -1);
  const { endAttempts } = start(300_000, 60_000);
  await vi.waitFor(() => expect(endAttempts).toHaveBeenCalledTimes(1));
  const other = await busyAgent('other', -1);
  await vi.waitFor(() => expect(endAttempts.mock.calls.map(([id]) => id)).toContain(other));
  expect(endAttempts).toHaveBeenCalledTimes(2);
});

test('it tells when a replica is gone whose row was there', async () => {
  const other = randomUUID();
  await sql`INSERT INTO replicas (id, name) VALUES (${other}, 'other')`;
  await busyAgent('looked at', -1);
  const { ended, onReplicaGone } = start();
  await vi.waitFor(() => expect(ended).toHaveLength(1));
  expect(onReplicaGone).not.toHaveBeenCalled();
  await sql`DELETE FROM replicas WHERE id = ${other}`;
  await vi.waitFor(() => expect(onReplicaGone).toHaveBeenCalledTimes(1));
});

test.each<[string, (id: string) => Promise<unknown>]>([
  ['whose lease has ended', (id) => sql`UPDATE agents SET replica_id = NULL, lease_end_time = now() WHERE id = ${id}`],
  ['whose replica is gone', (id) => sql`UPDATE agents SET replica_id = ${randomUUID()} WHERE id = ${id}`],
  ['whose work was kept', (id) => sql`UPDATE agents SET brake_end_time = now() WHERE id = ${id}`],
])('a look finds an agent %s', async (_, change) => {
  const id = await busyAgent('changed', undefined);
  await busyAgent('linked', undefined);
  await busyAgent('leaving', 20);
  expect(await lookAtLeases(sql, 1_000)).toMatchObject({ is_due: false, next_ms: null });
  await change(id);
  expect(await lookAtLeases(sql, 1_000)).toMatchObject({ is_due: true });
});

test('a look tells when the next lease ends, and every replica as the others see it', async () => {
  await busyAgent('leaving', 20);
  await busyAgent('about to leave', 10);
  const { replicas, next_ms: nextMs } = await lookAtLeases(sql, 15_000);
  expect(nextMs).toBeGreaterThan(5_000);
  expect(nextMs).toBeLessThanOrEqual(10_000);
  const [row] = await sql`SELECT id, name, beat_time::text AS beat FROM replicas WHERE id = ${replica}`;
  expect(replicas).toContainEqual(row);
});
