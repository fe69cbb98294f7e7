import type { Sql } from '../sql.ts';

/**
 * Ends a waiting execution as cancelled, or marks one that runs.
 * @returns `ended`, `requested` (its attempt must be told), `finished` (nothing changed), undefined when there is none.
 */
export async function cancelExecution(
  sql: Sql,
  options: { tenantId: string; id: string; message: string; cancelled: number; errorCode: number },
): Promise<'ended' | 'requested' | 'finished' | undefined> {
  const { tenantId, id } = options;
  return await sql.begin(async (transaction) => {
    const leaveQueue = async () =>
      (
        await transaction`DELETE FROM execution_queue WHERE execution_id = ${id} AND tenant_id = ${tenantId}
        RETURNING execution_id`
      ).length > 0;
    const end = async () => {
      await transaction`
        WITH finished AS (
          UPDATE executions SET state = ${options.cancelled}, error_code = ${options.errorCode},
            error_message = ${options.message}, end_time = now(), stdout_bytes = 0, stderr_bytes = 0
          WHERE tenant_id = ${tenantId} AND id = ${id}
          RETURNING tenant_id, id, attempt, state, error_code
        )
        INSERT INTO events (tenant_id, type, execution_id, attempt, state, error_code)
        SELECT tenant_id, 'execution.finished', id, attempt, state, error_code FROM finished`;
      return 'ended' as const;
    };
    // The queue entry is locked first, as by a claim: the two take turns.
    if (await leaveQueue()) return await end();
    const [row] = await transaction<{ ended: boolean; waiting: boolean }[]>`
      UPDATE executions SET cancel_reason = CASE WHEN end_time IS NULL THEN coalesce(cancel_reason, ${options.message}) END
      WHERE tenant_id = ${tenantId} AND id = ${id}
      RETURNING end_time IS NOT NULL AS ended, agent_id IS NULL AS waiting`;
    if (row === undefined) return undefined;
    if (row.ended) return 'finished';
    // Its attempt was put back into the queue in between.
    return row.waiting && (await leaveQueue()) ? await end() : 'requested';
  });
}
