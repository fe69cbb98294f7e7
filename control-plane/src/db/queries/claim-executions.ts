import type { AnySql, Sql } from '../sql.ts';
import type { ExecutionReservation } from './read-executions.ts';

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
export type ClaimedExecution = WaitingExecution & Assigned;

/** Entries of the queue that ask the same of agents. */
export interface LaneKey {
  tenantId: string;
  taskClass: string;
  shape: string;
}

/** Where a page of a lane ended: the next one starts behind it. */
export interface QueueCursor {
  priority: number;
  id: string;
}

export interface WaitingLane {
  key: LaneKey;
  /** The first due entries, in order; none may be due. */
  entries: WaitingExecution[];
}

/**
 * The lanes of the queue in the order of their keys, each with its first due entries. A lane costs two looks into an index,
 * however long it is.
 */
export async function readLanes(
  sql: Sql,
  options: { after: LaneKey | undefined; lanes: number; entries: number },
): Promise<WaitingLane[]> {
  const { tenantId, taskClass, shape } = options.after ?? BEFORE_ALL;
  const rows = await sql<LaneRow[]>`
    WITH RECURSIVE lane AS (
      (
        SELECT tenant_id, task_class, shape FROM execution_queue
        WHERE (tenant_id, task_class, shape) > (${tenantId}::uuid, ${taskClass}, ${shape})
        ORDER BY tenant_id, task_class, shape LIMIT 1
      )
      UNION ALL
      SELECT next.* FROM lane CROSS JOIN LATERAL (
        SELECT q.tenant_id, q.task_class, q.shape FROM execution_queue AS q
        WHERE (q.tenant_id, q.task_class, q.shape) > (lane.tenant_id, lane.task_class, lane.shape)
        ORDER BY q.tenant_id, q.task_class, q.shape LIMIT 1
      ) AS next
    )
    SELECT lane.tenant_id AS "tenantId", lane.task_class AS "taskClass", lane.shape, e.*
    FROM (SELECT * FROM lane LIMIT ${options.lanes}) AS lane
    LEFT JOIN LATERAL (
      SELECT execution_id, priority FROM execution_queue AS q
      WHERE q.tenant_id = lane.tenant_id AND q.task_class = lane.task_class AND q.shape = lane.shape
        AND q.not_before <= now()
      ORDER BY q.priority DESC, q.execution_id LIMIT ${options.entries}
    ) AS q ON true
    LEFT JOIN LATERAL (
      -- The limit keeps the planner from reading the whole table: it expects as many lanes as there may be.
      SELECT ${sql.unsafe(COLUMNS)} FROM executions AS e
      WHERE e.tenant_id = lane.tenant_id AND e.id = q.execution_id LIMIT 1
    ) AS e ON true
    ORDER BY lane.tenant_id, lane.task_class, lane.shape, q.priority DESC, q.execution_id`;
  const lanes: WaitingLane[] = [];
  for (const { tenantId: tenant, taskClass: of, shape: like, ...entry } of rows) {
    let lane = lanes.at(-1);
    if (lane === undefined || lane.key.tenantId !== tenant || lane.key.taskClass !== of || lane.key.shape !== like) {
      lane = { key: { tenantId: tenant, taskClass: of, shape: like }, entries: [] };
      lanes.push(lane);
    }
    if (entry.id !== null) lane.entries.push(entry as WaitingExecution);
  }
  return lanes;
}

type LaneRow = LaneKey & { [Column in keyof WaitingExecution]: WaitingExecution[Column] | null };

const BEFORE_ALL: LaneKey = { tenantId: '00000000-0000-0000-0000-000000000000', taskClass: '', shape: '' };

export const COLUMNS = `e.id, e.tenant_id, e.attempt, e.failures, e.module_id, e.module, e.version, e.task_class, e.labels, e.priority,
  e.request, e.json_text, e.create_time, e.queue_time`;

/** The due entries of a lane behind a place, in order. */
export async function readLane(sql: Sql, key: LaneKey, after: QueueCursor, limit: number): Promise<WaitingExecution[]> {
  return await sql<WaitingExecution[]>`
    SELECT ${sql.unsafe(COLUMNS)}
    FROM (
      SELECT execution_id, tenant_id, priority FROM execution_queue
      WHERE tenant_id = ${key.tenantId} AND task_class = ${key.taskClass} AND shape = ${key.shape}
        AND priority <= ${after.priority} AND (priority < ${after.priority} OR execution_id > ${after.id}::uuid)
        AND not_before <= now()
      ORDER BY priority DESC, execution_id
      LIMIT ${limit}
    ) AS q
    JOIN executions AS e ON e.tenant_id = q.tenant_id AND e.id = q.execution_id
    ORDER BY q.priority DESC, e.id`;
}

/** Which of some executions wait in the queue. */
export async function stillWaiting(sql: AnySql, ids: readonly string[]): Promise<Set<string>> {
  if (ids.length === 0) return new Set();
  const rows = await sql<{ id: string }[]>`
    SELECT execution_id AS id FROM execution_queue WHERE execution_id = ANY(${[...ids]}::uuid[])`;
  return new Set(rows.map(({ id }) => id));
}

/** An execution, and what takes it. */
export interface Claim {
  id: string;
  agentId: string;
  /** What it takes of the agent; null: a slot. */
  reservation: ExecutionReservation | null;
}

/** A claim as the database has taken it. */
export interface Assigned extends Claim {
  attempt: number;
  failures: number;
  queue_time: Date;
  input_json: string;
  assign_time: Date;
  /** The replica that follows it for a caller. */
  follower: string | null;
}

/**
 * Assigns waiting executions: entry deleted, attempt number incremented, agent recorded, in one statement. Nothing was locked
 * while they were looked at, so that replicas that have no agent for an entry do not hide it from those that have; what another
 * one has claimed by then is passed over.
 */
export async function assignClaims(sql: AnySql, claims: readonly Claim[], assigned: number): Promise<Assigned[]> {
  return await sql<Assigned[]>`
    WITH input AS MATERIALIZED (
      SELECT * FROM json_to_recordset(${JSON.stringify(claims.map(inputOf))}::text::json)
        AS input(id uuid, agent_id uuid, reservation jsonb)
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
      SET state = ${assigned}, attempt = attempt + 1, agent_id = input.agent_id, assign_time = now(),
        reservation = input.reservation
      FROM taken JOIN input ON input.id = taken.execution_id
      WHERE e.tenant_id = taken.tenant_id AND e.id = taken.execution_id
      RETURNING e.tenant_id, e.id, e.state, e.agent_id, e.attempt, e.failures, e.queue_time, e.input_json, e.assign_time,
        e.reservation, taken.replica_id
    ), told AS (
      INSERT INTO events (tenant_id, type, execution_id, attempt, agent_id, state)
      SELECT tenant_id, 'execution.assigned', id, attempt, agent_id, state FROM claimed
    )
    SELECT id, agent_id AS "agentId", attempt, failures, queue_time, input_json, assign_time, reservation,
      replica_id AS follower
    FROM claimed`;
}

function inputOf({ id, agentId, reservation }: Claim) {
  return { id, agent_id: agentId, ...(reservation === null ? {} : { reservation }) };
}
