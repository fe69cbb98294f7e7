import { randomUUID } from 'node:crypto';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test, vi } from 'vitest';
import { startDatabase } from '../../test-support/real-database.ts';
import { finishedRow, insertExecution } from '../../test-support/stored-executions.ts';
import { finishLeaseless } from './finish-executions.ts';
import { recordLostAgent } from './lost-agents.ts';
import { listActiveOfLostAgent } from './read-executions.ts';
import { requeueExecution } from './requeue-execution.ts';

const { cold: sql } = await startDatabase();
const tenantId = randomUUID();
await sql`INSERT INTO tenants (id, name) VALUES (${tenantId}, 'tenant')`;

/** An agent whose lease has ended, with an attempt. */
async function leaseless(): Promise<{ agentId: string; id: string }> {
  const agentId = randomUUID();
  await sql`INSERT INTO agents (id, tenant_id, name, public_key, version, hardware, isolation, slots, lease_end_time)
    VALUES (${agentId}, ${tenantId}, ${agentId}, ${Buffer.from(agentId)}, '', '', 0, 1, now() - interval '5 s')`;
  const id = await insertExecution(sql, { tenant_id: tenantId, state: State.RUNNING, attempt: 1, agent_id: agentId });
  return { agentId, id };
}

/** How an attempt is ended that is lost with its agent's lease. @returns whether it was */
const ends: [string, (id: string, agentId: string) => Promise<boolean>][] = [
  [
    'put back',
    async (id, agentId) => {
      const nothing = { errorMessage: null, errorDetails: null, exitCode: null, stdoutBytes: 0, stderrBytes: 0 };
      const due = await requeueExecution(sql, {
        ...{ id, tenantId, agentId, attempt: 1, state: State.FAILED, errorCode: Code.AGENT_LOST, ...nothing },
        ...{ ran: false, leaseless: true, failure: true, backoffMs: 0, pending: State.PENDING },
        ...{ replicaId: randomUUID(), shape: '' },
      });
      return due !== undefined;
    },
  ],
  [
    'over',
    async (id, agentId) => {
      const row = finishedRow({ id, tenant_id: tenantId, agent_id: agentId, state: State.FAILED });
      return (await finishLeaseless(sql, row)) !== undefined;
    },
  ],
];

test.each(ends)('an attempt whose agent has no lease, or was deleted, is %s', async (_what, end) => {
  const [gone, deleted] = [await leaseless(), await leaseless()];
  await sql`DELETE FROM agents WHERE id = ${deleted.agentId}`;
  expect(await end(gone.id, gone.agentId)).toBe(true);
  expect(await end(deleted.id, deleted.agentId)).toBe(true);
});

test.each(ends)('an attempt whose agent is just being linked is not %s', async (_what, end) => {
  const { agentId, id } = await leaseless();
  let ended: Promise<boolean> | undefined;
  await sql.begin(async (transaction) => {
    await transaction`UPDATE agents SET lease_end_time = NULL WHERE id = ${agentId}`;
    ended = end(id, agentId);
    await vi.waitFor(async () => {
      const waiting = await sql`SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'`;
      expect(waiting).toHaveLength(1);
    });
  });
  expect(await ended).toBe(false);
  const [row] = await sql`SELECT state, attempt, agent_id, end_time FROM executions WHERE id = ${id}`;
  expect(row).toEqual({ state: State.RUNNING, attempt: 1, agent_id: agentId, end_time: null });
});

test('what a lost agent has is listed, and for how long it has been lost is told, until it has a lease again', async () => {
  const { agentId, id } = await leaseless();
  expect(await recordLostAgent(sql, agentId)).toBeGreaterThanOrEqual(5_000);
  // Also when it was told before.
  expect(await recordLostAgent(sql, agentId)).toBeGreaterThanOrEqual(5_000);
  expect((await listActiveOfLostAgent(sql, agentId)).map((row) => row.id)).toEqual([id]);
  await sql`UPDATE agents SET lease_end_time = NULL WHERE id = ${agentId}`;
  expect(await recordLostAgent(sql, agentId)).toBeUndefined();
  expect(await listActiveOfLostAgent(sql, agentId)).toEqual([]);
  expect(await sql`SELECT 1 FROM events WHERE type = 'agent.lost' AND agent_id = ${agentId}`).toHaveLength(1);
});
