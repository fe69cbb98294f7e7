import type { Sql } from '../sql.ts';

/** When the next entry becomes due that is not yet; undefined when there is none. */
export async function nextDueTime(sql: Sql): Promise<{ inMs: number } | undefined> {
  const [row] = await sql<{ in_ms: number }[]>`
    SELECT extract(epoch FROM not_before - now()) * 1000 AS in_ms FROM execution_queue
    WHERE not_before > now() ORDER BY not_before LIMIT 1`;
  return row === undefined ? undefined : { inMs: Number(row.in_ms) };
}

/** Queue entries by task class, over all tenants, and how long the oldest of each class has been due, in seconds. */
export async function queueDepths(sql: Sql): Promise<{ taskClass: string; depth: number; oldestSeconds: number }[]> {
  return await sql<{ taskClass: string; depth: number; oldestSeconds: number }[]>`
    SELECT task_class AS "taskClass", count(*)::int AS depth,
      greatest(0, extract(epoch FROM now() - min(not_before)))::float8 AS "oldestSeconds"
    FROM execution_queue GROUP BY task_class`;
}
