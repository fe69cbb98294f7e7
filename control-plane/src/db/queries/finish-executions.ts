import { Execution_State as State } from '@harrier/shared/gen/execution';
import type { Sql } from '../sql.ts';
import { fencedByLease, notFenced } from './lost-agents.ts';

// The planner takes a document for 100 rows and would rather read a whole small table than look 100 keys up, and the plan
// is kept when the table has grown. "attempt % 1 = 0" is always true, but makes it expect one row and use the key.

/** How the current attempt of an execution ended, for good. */
export interface FinishedExecution {
  id: string;
  tenant_id: string;
  attempt: number;
  agent_id: string | null;
  state: number;
  output_json: string | null;
  error_code: number | null;
  error_message: string | null;
  error_details: string | null;
  exit_code: number | null;
  stdout_tail: string | null;
  stderr_tail: string | null;
  stdout_bytes: number;
  stderr_bytes: number;
  stdout_truncated: boolean;
  stderr_truncated: boolean;
  cpu_ms: number | null;
  max_rss_bytes: number | null;
  prepare_ms: number | null;
  run_ms: number | null;
}

/** Database times of an execution that has ended. */
export interface FinishTimes {
  queue_time: Date;
  assign_time: Date | null;
  start_time: Date | null;
  end_time: Date;
}

/**
 * Accepts results, each exactly once: only while the attempt is the current one and not yet in a final state.
 * The start is told by the duration of the run, so that no clock but the database's is used.
 * @returns for each, in order, its times; undefined when the result was not wanted any more.
 */
export async function finishExecutions(sql: Sql, rows: FinishedExecution[]): Promise<(FinishTimes | undefined)[]> {
  const [only] = rows;
  if (rows.length === 1 && only !== undefined) return [await finishOne(sql, only)];
  const finished = await sql<(FinishTimes & { id: string })[]>`
    WITH input AS MATERIALIZED (
      SELECT * FROM json_to_recordset(${JSON.stringify(rows)}::text::json) AS input(
        id uuid, tenant_id uuid, attempt int, agent_id uuid, state smallint, output_json text, error_code smallint,
        error_message text, error_details text, exit_code int, stdout_tail text, stderr_tail text, stdout_bytes bigint,
        stderr_bytes bigint, stdout_truncated boolean, stderr_truncated boolean, cpu_ms float8, max_rss_bytes bigint,
        prepare_ms float8, run_ms float8)
      WHERE attempt % 1 = 0
    ), finished AS (
    UPDATE executions AS e SET
      state = input.state, output_json = input.output_json, error_code = input.error_code,
      error_message = input.error_message, error_details = input.error_details, exit_code = input.exit_code,
      stdout_tail = input.stdout_tail, stderr_tail = input.stderr_tail, stdout_bytes = input.stdout_bytes,
      stderr_bytes = input.stderr_bytes, stdout_truncated = input.stdout_truncated,
      stderr_truncated = input.stderr_truncated, cpu_ms = input.cpu_ms, max_rss_bytes = input.max_rss_bytes,
      prepare_ms = input.prepare_ms, run_ms = input.run_ms, end_time = now(), start_recorded = e.start_time IS NOT NULL,
      start_time = coalesce(now() - input.run_ms * interval '1 millisecond', e.start_time)
    FROM input
    WHERE e.tenant_id = input.tenant_id AND e.id = input.id AND e.attempt = input.attempt
      AND e.agent_id IS NOT DISTINCT FROM input.agent_id AND e.end_time IS NULL
    RETURNING e.id, e.tenant_id, e.attempt, e.agent_id, e.state, e.error_code, e.start_recorded, e.queue_time,
      e.assign_time, e.start_time, e.end_time
    ), ${toldEnds(sql)}
    SELECT id, queue_time, assign_time, start_time, end_time FROM finished`;
  const times = new Map(finished.map((row) => [row.id, row]));
  return rows.map((row) => times.get(row.id));
}

/** The same for a lone result: the case that a caller waits for, at half the time. */
async function finishOne(sql: Sql, row: FinishedExecution, fence = notFenced(sql)): Promise<FinishTimes | undefined> {
  const [times] = await sql<FinishTimes[]>`
    WITH ${fence.held}finished AS (
    UPDATE executions SET
      state = ${row.state}, output_json = ${row.output_json}, error_code = ${row.error_code},
      error_message = ${row.error_message}, error_details = ${row.error_details}, exit_code = ${row.exit_code},
      stdout_tail = ${row.stdout_tail}, stderr_tail = ${row.stderr_tail}, stdout_bytes = ${row.stdout_bytes},
      stderr_bytes = ${row.stderr_bytes}, stdout_truncated = ${row.stdout_truncated},
      stderr_truncated = ${row.stderr_truncated}, cpu_ms = ${row.cpu_ms}, max_rss_bytes = ${row.max_rss_bytes},
      prepare_ms = ${row.prepare_ms}, run_ms = ${row.run_ms}, end_time = now(), start_recorded = start_time IS NOT NULL,
      start_time = coalesce(now() - ${row.run_ms}::float8 * interval '1 millisecond', start_time)
    WHERE tenant_id = ${row.tenant_id} AND id = ${row.id} AND attempt = ${row.attempt}
      AND agent_id IS NOT DISTINCT FROM ${row.agent_id}::uuid AND end_time IS NULL ${fence.isOver}
    RETURNING id, tenant_id, attempt, agent_id, state, error_code, start_recorded, queue_time, assign_time, start_time, end_time
    ), ${toldEnds(sql)}
    SELECT queue_time, assign_time, start_time, end_time FROM finished`;
  return times;
}

/** Accepts the end of an attempt that is lost with the lease of its agent: unless the agent has a lease. See `finishExecutions`. */
export async function finishLeaseless(sql: Sql, row: FinishedExecution): Promise<FinishTimes | undefined> {
  return await finishOne(sql, row, fencedByLease(sql, row.agent_id));
}

/** The events of `finished`: its end, and its start unless that was recorded before. Short runs never have it recorded. */
function toldEnds(sql: Sql) {
  return sql`told AS (
      INSERT INTO events (tenant_id, time, type, execution_id, attempt, agent_id, state, error_code)
      SELECT tenant_id, start_time, 'execution.started', id, attempt, agent_id, ${State.RUNNING}::smallint, NULL FROM finished
      WHERE start_time IS NOT NULL AND NOT start_recorded
      UNION ALL
      SELECT tenant_id, end_time, 'execution.finished', id, attempt, agent_id, state, error_code FROM finished
    )`;
}
