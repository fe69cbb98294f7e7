import type { Sql } from '../sql.ts';

// The planner takes a document for 100 rows and would rather read a whole small table than look 100 keys up, and the plan
// is kept when the table has grown. "attempt % 1 = 0" is always true, but makes it expect one row and use the key.

/** Where memory believes an execution to be. */
export interface BelievedPlace {
  id: string;
  tenant_id: string;
  attempt: number;
  /** Null while it waits. */
  agent_id: string | null;
}

/** An execution that is not where it was believed to be: it has ended, has another attempt or agent, or its agent moved. */
export interface MovedExecution {
  id: string;
  attempt: number;
  agent_id: string | null;
  ended: boolean;
}

export async function findMovedExecutions(
  sql: Sql,
  believed: BelievedPlace[],
  replicaId: string,
): Promise<MovedExecution[]> {
  return await sql<MovedExecution[]>`
    WITH input AS MATERIALIZED (
      SELECT * FROM json_to_recordset(${JSON.stringify(believed)}::text::json)
        AS input(id uuid, tenant_id uuid, attempt int, agent_id uuid)
      WHERE attempt % 1 = 0
    )
    SELECT e.id, e.attempt, e.agent_id, e.end_time IS NOT NULL AS ended
    FROM input JOIN executions AS e ON e.tenant_id = input.tenant_id AND e.id = input.id
    LEFT JOIN agents AS a ON a.id = e.agent_id AND a.replica_id <> ${replicaId}
    WHERE a.id IS NOT NULL OR e.end_time IS NOT NULL OR e.attempt <> input.attempt OR e.agent_id IS DISTINCT FROM input.agent_id`;
}
