import type { Sql } from '../sql.ts';

// The planner takes a document for 100 rows and would rather read a whole small table than look 100 keys up, and the plan
// is kept when the table has grown. "attempt % 1 = 0" is always true, but makes it expect one row and use the key.

export interface StartedExecution {
  id: string;
  tenant_id: string;
  attempt: number;
  agent_id: string;
  /** PREPARING or RUNNING. */
  state: number;
  /** How long it has been in that state. */
  age_ms: number;
}

/** Records that attempts are being prepared or have started; those that are over or not current any more are left alone. */
export async function startExecutions(sql: Sql, rows: StartedExecution[], running: number): Promise<void> {
  await sql`
    WITH input AS MATERIALIZED (
      SELECT * FROM json_to_recordset(${JSON.stringify(rows)}::text::json)
        AS input(id uuid, tenant_id uuid, attempt int, agent_id uuid, state smallint, age_ms float8)
      WHERE attempt % 1 = 0
    ), moved AS (
    UPDATE executions AS e
    SET state = input.state,
      start_time = CASE WHEN input.state = ${running} THEN now() - input.age_ms * interval '1 millisecond' END
    FROM input
    WHERE e.tenant_id = input.tenant_id AND e.id = input.id AND e.attempt = input.attempt AND e.end_time IS NULL
      -- One that was put back has its number until the next one begins.
      AND e.agent_id = input.agent_id AND e.state < input.state
    RETURNING e.tenant_id, e.id, e.attempt, e.agent_id, e.state, e.start_time
    )
    INSERT INTO events (tenant_id, time, type, execution_id, attempt, agent_id, state)
    SELECT tenant_id, coalesce(start_time, now()), CASE WHEN state = ${running} THEN 'execution.started' ELSE 'execution.preparing' END, id, attempt,
      agent_id, state
    FROM moved`;
}
