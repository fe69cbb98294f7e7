import type { Sql } from '../sql.ts';
import { COLUMNS, type WaitingExecution } from './claim-executions.ts';

/** Entries of the queue that ask the same of agents. */
export interface DeepLane {
  taskClass: string;
  /** Entries that are due. */
  depth: number;
  /** The first of them. */
  first: WaitingExecution;
}

/** The lanes of the queue in which most waits. */
export async function deepestLanes(sql: Sql, limit: number): Promise<DeepLane[]> {
  const rows = await sql<(WaitingExecution & { laneClass: string; depth: number })[]>`
    WITH lane AS (
      SELECT tenant_id, task_class, shape, count(*)::int AS depth FROM execution_queue WHERE not_before <= now()
      GROUP BY tenant_id, task_class, shape ORDER BY depth DESC LIMIT ${limit}
    )
    SELECT lane.task_class AS "laneClass", lane.depth, e.*
    FROM lane
    CROSS JOIN LATERAL (
      SELECT execution_id FROM execution_queue AS q
      WHERE q.tenant_id = lane.tenant_id AND q.task_class = lane.task_class AND q.shape = lane.shape
        AND q.not_before <= now()
      ORDER BY q.priority DESC, q.execution_id LIMIT 1
    ) AS q
    JOIN LATERAL (
      SELECT ${sql.unsafe(COLUMNS)} FROM executions AS e WHERE e.tenant_id = lane.tenant_id AND e.id = q.execution_id
    ) AS e ON true`;
  return rows.map(({ laneClass, depth, ...first }) => ({ taskClass: laneClass, depth, first }));
}
