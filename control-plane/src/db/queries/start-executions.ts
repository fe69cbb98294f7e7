import type { Sql } from '../database.ts';

export interface StartedExecution {
  id: string;
  tenant_id: string;
  attempt: number;
  /** PREPARING or RUNNING. */
  state: number;
}

/** Records that attempts are being prepared or have started; those that are over or not current any more are left alone. */
export async function startExecutions(sql: Sql, rows: StartedExecution[], running: number): Promise<void> {
  await sql`
    WITH input AS MATERIALIZED (
      SELECT * FROM json_to_recordset(${JSON.stringify(rows)}::text::json)
        AS input(id uuid, tenant_id uuid, attempt int, state smallint)
    )
    UPDATE executions AS e
    SET state = input.state, start_time = CASE WHEN input.state = ${running} THEN now() END
    FROM input
    WHERE e.tenant_id = input.tenant_id AND e.id = input.id AND e.attempt = input.attempt AND e.end_time IS NULL
      AND e.state < input.state`;
}
