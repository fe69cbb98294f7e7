import type { Sql } from '../sql.ts';

// The planner takes a document for 100 rows and would rather read a whole small table than look 100 keys up, and the plan
// is kept when the table has grown. "attempt % 1 = 0" is always true, but makes it expect one row and use the key.

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
      WHERE attempt % 1 = 0
    ), moved AS (
    UPDATE executions AS e
    SET state = input.state, start_time = CASE WHEN input.state = ${running} THEN now() END
    FROM input
    WHERE e.tenant_id = input.tenant_id AND e.id = input.id AND e.attempt = input.attempt AND e.end_time IS NULL
      AND e.state < input.state
    RETURNING e.tenant_id, e.id, e.attempt, e.agent_id, e.state
    )
    INSERT INTO events (tenant_id, type, execution_id, attempt, agent_id, state)
    SELECT tenant_id, CASE WHEN state = ${running} THEN 'execution.started' ELSE 'execution.preparing' END, id, attempt,
      agent_id, state
    FROM moved`;
}
