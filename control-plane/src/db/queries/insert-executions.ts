import type { Sql } from '../sql.ts';
import type { ExecutionReservation } from './read-executions.ts';

/** A new execution, assigned at once or put into the queue. Bytes are base64, since they travel in a JSON document. */
export interface NewExecution {
  id: string;
  tenant_id: string;
  state: number;
  attempt: number;
  agent_id: string | null;
  module_id: string | null;
  module: string | null;
  version: string | null;
  task_class: string;
  labels: Record<string, string> | null;
  priority: number;
  request: string;
  input_json: string;
  json_text: boolean;
  idempotency_key: string | null;
  /** The replica that accepts it, which follows it while it waits. */
  replica_id: string | null;
  /** The lane of the queue that it waits in. */
  shape: string;
  /** What it takes of the agent; null: a slot. */
  reservation: ExecutionReservation | null;
  /** Executions of the tenant with the same one share a limit. */
  concurrency_key: string | null;
}

/**
 * Inserts executions, their events, and queue entries for those without an agent, in one statement.
 * @returns for each, in order, when it was created; undefined when its idempotency key was taken and nothing was written.
 */
export async function insertExecutions(sql: Sql, rows: NewExecution[]): Promise<(Date | undefined)[]> {
  const [only] = rows;
  if (rows.length === 1 && only?.agent_id != null && only.reservation === null)
    return [await insertAssigned(sql, only)];
  const inserted = await sql<{ id: string; create_time: Date }[]>`
    WITH input AS MATERIALIZED (
      SELECT * FROM json_to_recordset(${JSON.stringify(rows)}::text::json) AS input(
        id uuid, tenant_id uuid, state smallint, attempt int, agent_id uuid, module_id uuid, module text, version text,
        task_class text, labels jsonb, priority int, request text, input_json text, json_text boolean,
        idempotency_key text, replica_id uuid, shape text, reservation jsonb, concurrency_key text)
    ), inserted AS (
      INSERT INTO executions (id, tenant_id, state, attempt, agent_id, module_id, module, version, task_class, labels,
        priority, request, input_json, json_text, idempotency_key, assign_time, reservation, concurrency_key)
      SELECT id, tenant_id, state, attempt, agent_id, module_id, module, version, task_class, labels,
        priority, decode(request, 'base64'), input_json, json_text, idempotency_key,
        CASE WHEN agent_id IS NOT NULL THEN now() END, reservation, concurrency_key
      FROM input
      ON CONFLICT DO NOTHING
      RETURNING id, tenant_id, state, attempt, agent_id, task_class, priority, create_time
    ), told AS (
      INSERT INTO events (tenant_id, type, execution_id, attempt, agent_id, state)
      SELECT tenant_id, 'execution.created', id, attempt, agent_id, state FROM inserted
    ), queued AS (
      INSERT INTO execution_queue (execution_id, tenant_id, task_class, priority, replica_id, shape)
      SELECT id, inserted.tenant_id, inserted.task_class, inserted.priority, input.replica_id, input.shape
      FROM inserted JOIN input USING (id) WHERE inserted.agent_id IS NULL
    )
    SELECT id, create_time FROM inserted`;
  const times = new Map(inserted.map((row) => [row.id, row.create_time]));
  return rows.map((row) => times.get(row.id));
}

/** The same for a lone execution that is assigned at once: the case that a caller waits for, at half the time. */
async function insertAssigned(sql: Sql, row: NewExecution): Promise<Date | undefined> {
  const [inserted] = await sql<{ create_time: Date }[]>`
    WITH inserted AS (
    INSERT INTO executions (id, tenant_id, state, attempt, agent_id, module_id, module, version, task_class, labels,
      priority, request, input_json, json_text, idempotency_key, assign_time)
    VALUES (${row.id}, ${row.tenant_id}, ${row.state}, ${row.attempt}, ${row.agent_id}, ${row.module_id}, ${row.module},
      ${row.version}, ${row.task_class}, ${row.labels === null ? null : sql.json(row.labels)}, ${row.priority},
      decode(${row.request}, 'base64'), ${row.input_json}, ${row.json_text}, ${row.idempotency_key}, now())
    ON CONFLICT DO NOTHING RETURNING create_time
    ), told AS (
      INSERT INTO events (tenant_id, type, execution_id, attempt, agent_id, state)
      SELECT ${row.tenant_id}::uuid, 'execution.created', ${row.id}::uuid, ${row.attempt}::int, ${row.agent_id}::uuid,
        ${row.state}::smallint
      FROM inserted
    )
    SELECT create_time FROM inserted`;
  return inserted?.create_time;
}
