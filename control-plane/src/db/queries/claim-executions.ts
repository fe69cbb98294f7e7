import type { Sql } from '../sql.ts';

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
  /** The replica that follows it for a caller. */
  follower: string | null;
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
 * attempt number incremented, agent recorded, in one statement. Nothing is locked while `choose` looks, so that replicas that
 * have no agent for an entry do not hide it from those that have; what another one has claimed by then is passed over.
 * @returns the page as read and what was claimed of it.
 */
export async function claimExecutions(
  sql: Sql,
  options: { assigned: number; limit: number; after: QueueCursor | undefined },
  choose: (waiting: WaitingExecution[]) => Promise<Claim[]>,
): Promise<{ waiting: WaitingExecution[]; claimed: ClaimedExecution[] }> {
  const waiting = await readPage(sql, options.limit, options.after);
  const claims = waiting.length === 0 ? [] : await choose(waiting);
  if (claims.length === 0) return { waiting, claimed: [] };
  const assigned = new Map((await assign(sql, claims, options.assigned)).map((row) => [row.id, row]));
  const claimed = waiting.flatMap((entry) => {
    const row = assigned.get(entry.id);
    return row === undefined ? [] : [{ ...entry, ...row }];
  });
  return { waiting, claimed };
}

async function readPage(sql: Sql, limit: number, after: QueueCursor | undefined): Promise<WaitingExecution[]> {
  return await sql<WaitingExecution[]>`
    SELECT e.id, e.tenant_id, e.attempt, e.failures, e.module_id, e.module, e.version, e.task_class, e.labels, e.priority,
      e.request, e.json_text, e.create_time, e.queue_time
    FROM (
      SELECT execution_id, tenant_id, priority FROM execution_queue
      WHERE not_before <= now()
        ${after === undefined ? sql`` : sql`AND (-priority, execution_id) > (${-after.priority}, ${after.id}::uuid)`}
      ORDER BY priority DESC, execution_id
      LIMIT ${limit}
    ) AS q
    JOIN executions AS e ON e.tenant_id = q.tenant_id AND e.id = q.execution_id
    ORDER BY q.priority DESC, e.id`;
}

interface Assigned {
  id: string;
  agentId: string;
  attempt: number;
  failures: number;
  queue_time: Date;
  input_json: string;
  assign_time: Date;
  follower: string | null;
}

async function assign(sql: Sql, claims: Claim[], assigned: number): Promise<Assigned[]> {
  return await sql<Assigned[]>`
    WITH input AS MATERIALIZED (
      SELECT * FROM unnest(${claims.map((claim) => claim.id)}::uuid[], ${claims.map((claim) => claim.agentId)}::uuid[])
        AS input(id, agent_id)
      -- Always true; see finish-executions.ts.
      WHERE length(id::text) % 1 = 0
    ), free AS (
      SELECT execution_id FROM execution_queue JOIN input ON execution_id = input.id
      -- It may have been run and put back since the page was read.
      WHERE not_before <= now()
      FOR UPDATE OF execution_queue SKIP LOCKED
    ), taken AS (
      DELETE FROM execution_queue AS q USING free WHERE q.execution_id = free.execution_id
      RETURNING q.tenant_id, q.execution_id, q.replica_id
    ), claimed AS (
      UPDATE executions AS e
      SET state = ${assigned}, attempt = attempt + 1, agent_id = input.agent_id, assign_time = now()
      FROM taken JOIN input ON input.id = taken.execution_id
      WHERE e.tenant_id = taken.tenant_id AND e.id = taken.execution_id
      RETURNING e.tenant_id, e.id, e.state, e.agent_id, e.attempt, e.failures, e.queue_time, e.input_json, e.assign_time,
        taken.replica_id
    ), told AS (
      INSERT INTO events (tenant_id, type, execution_id, attempt, agent_id, state)
      SELECT tenant_id, 'execution.assigned', id, attempt, agent_id, state FROM claimed
    )
    SELECT id, agent_id AS "agentId", attempt, failures, queue_time, input_json, assign_time, replica_id AS follower
    FROM claimed`;
}
