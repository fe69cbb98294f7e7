import type { Sql } from '../sql.ts';

/** Running attempts of some agents that a caller asked to cancel, with the reason. */
export async function listCancelRequests(
  sql: Sql,
  agentIds: readonly string[],
): Promise<{ id: string; cancel_reason: string }[]> {
  return await sql<{ id: string; cancel_reason: string }[]>`
    SELECT id, cancel_reason FROM executions
    WHERE agent_id = ANY(${[...agentIds]}::uuid[]) AND end_time IS NULL AND cancel_reason IS NOT NULL`;
}
