import type { Sql } from '../sql.ts';

/**
 * Ends an execution that waits, because nobody can ever run it.
 * @returns when it ended; undefined when it does not wait any more, and nothing was changed
 */
export async function refuseExecution(
  sql: Sql,
  refused: {
    tenantId: string;
    id: string;
    state: number;
    errorCode: number;
    errorMessage: string;
    errorDetails: string | null;
  },
): Promise<Date | undefined> {
  const { tenantId, id } = refused;
  const [row] = await sql<{ end_time: Date }[]>`
    WITH left_queue AS (
      DELETE FROM execution_queue WHERE execution_id = ${id} AND tenant_id = ${tenantId} RETURNING execution_id
    ), finished AS (
    UPDATE executions SET state = ${refused.state}, error_code = ${refused.errorCode},
      error_message = ${refused.errorMessage}, error_details = ${refused.errorDetails}, end_time = now(),
      stdout_bytes = 0, stderr_bytes = 0
    FROM left_queue WHERE executions.tenant_id = ${tenantId} AND executions.id = left_queue.execution_id
    RETURNING executions.tenant_id, id, attempt, state, error_code, end_time
    ), told AS (
      INSERT INTO events (tenant_id, type, execution_id, attempt, state, error_code)
      SELECT tenant_id, 'execution.finished', id, attempt, state, error_code FROM finished
    )
    SELECT end_time FROM finished`;
  return row?.end_time;
}
