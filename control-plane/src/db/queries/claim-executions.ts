import type { TransactionSql } from 'postgres';
import type { Sql } from '../sql.ts';

type Transaction = TransactionSql<{ bigint: number }>;

/** What the scheduler must know of a waiting execution to place it; not its input, which may be large. */
export interface WaitingExecution {
  id: string;
  tenant_id: string;
  attempt: number;
  failures: number;
  module_id: string | null;
  module: string | null;
  version: string | null;
  task_class: string;
  labels: Record<string, string> | null;
  priority: number;
  request: Uint8Array;
  json_text: boolean;
  create_time: Date;
  queue_time: Date;
}

/** An execution that was claimed, as it stands now. */
export interface ClaimedExecution extends WaitingExecution {
  agentId: string;
  input_json: string;
  assign_time: Date;
}

export interface Claim {
  id: string;
  agentId: string;
}

/** Where a page of the queue ended: the next one starts behind it. */
export interface QueueCursor {
  priority: number;
  id: string;
}

/**
 * Reads a page of due queue entries in order, lets `choose` pick agents for some of them, and assigns those: entry deleted,
 * attempt number incremented, agent recorded, in one transaction. Entries that another replica is looking at are skipped.
 * @returns the page as read and what was claimed of it.
 */
export async function claimExecutions(
  sql: Sql,
  options: { assigned: number; limit: number; after: QueueCursor | undefined },
  choose: (waiting: WaitingExecution[]) => Promise<Claim[]>,
): Promise<{ waiting: WaitingExecution[]; claimed: ClaimedExecution[] }> {
  return await sql.begin(async (transaction) => {
    const waiting = await readPage(transaction, options.limit, options.after);
    const claims = waiting.length === 0 ? [] : await choose(waiting);
    if (claims.length === 0) return { waiting, claimed: [] };
    const assigned = new Map((await assign(transaction, claims, options.assigned)).map((row) => [row.id, row]));
    const claimed = waiting.flatMap((entry) => {
      const row = assigned.get(entry.id);
      return row === undefined ? [] : [{ ...entry, ...row }];
    });
    return { waiting, claimed };
  });
}

async function readPage(sql: Transaction, limit: number, after: QueueCursor | undefined): Promise<WaitingExecution[]> {
  return await sql<WaitingExecution[]>`
    SELECT e.id, e.tenant_id, e.attempt, e.failures, e.module_id, e.module, e.version, e.task_class, e.labels, e.priority,
      e.request, e.json_text, e.create_time, e.queue_time
    FROM (
      SELECT execution_id, tenant_id, priority FROM execution_queue
      WHERE not_before <= now()
        ${after === undefined ? sql`` : sql`AND (-priority, execution_id) > (${-after.priority}, ${after.id}::uuid)`}
      ORDER BY priority DESC, execution_id
      LIMIT ${limit} FOR UPDATE SKIP LOCKED
    ) AS q
    JOIN executions AS e ON e.tenant_id = q.tenant_id AND e.id = q.execution_id
    ORDER BY q.priority DESC, e.id`;
}

interface Assigned {
  id: string;
  agentId: string;
  attempt: number;
  input_json: string;
  assign_time: Date;
}

async function assign(sql: Transaction, claims: Claim[], assigned: number): Promise<Assigned[]> {
  return await sql<Assigned[]>`
    WITH input AS MATERIALIZED (
      SELECT * FROM unnest(${claims.map((claim) => claim.id)}::uuid[], ${claims.map((claim) => claim.agentId)}::uuid[])
        AS input(id, agent_id)
      -- Always true; see finish-executions.ts.
      WHERE length(id::text) % 1 = 0
    ), taken AS (
      DELETE FROM execution_queue USING input WHERE execution_id = input.id RETURNING tenant_id, execution_id
    ), claimed AS (
      UPDATE executions AS e
      SET state = ${assigned}, attempt = attempt + 1, agent_id = input.agent_id, assign_time = now()
      FROM taken JOIN input ON input.id = taken.execution_id
      WHERE e.tenant_id = taken.tenant_id AND e.id = taken.execution_id
      RETURNING e.tenant_id, e.id, e.state, e.agent_id, e.attempt, e.input_json, e.assign_time
    ), told AS (
      INSERT INTO events (tenant_id, type, execution_id, attempt, agent_id, state)
      SELECT tenant_id, 'execution.assigned', id, attempt, agent_id, state FROM claimed
    )
    SELECT id, agent_id AS "agentId", attempt, input_json, assign_time FROM claimed`;
}
