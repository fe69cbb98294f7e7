import type { Sql } from '../sql.ts';

/**
 * The replica that the agent of an execution is linked to.
 * @returns null while it waits, and when its agent is not linked; undefined when there is no such execution
 */
export async function replicaOfExecution(sql: Sql, tenantId: string, id: string): Promise<string | null | undefined> {
  const [row] = await sql<{ replica_id: string | null }[]>`
    SELECT a.replica_id FROM executions AS e LEFT JOIN agents AS a ON a.id = e.agent_id
    WHERE e.tenant_id = ${tenantId} AND e.id = ${id}`;
  return row === undefined ? undefined : row.replica_id;
}
