import { ADVISORY_LOCKS } from '../advisory-locks.ts';
import type { AnySql, Sql } from '../sql.ts';

/** In the cluster that has made them, all ids of transactions that can be seen are below this. */
const end = (sql: AnySql) => sql`pg_snapshot_xmax(pg_current_snapshot())`;

/** Whether there are events, or readers of them, with transaction ids that this cluster has not given out yet. */
async function hasForeignEvents(sql: AnySql): Promise<boolean> {
  const [row] = await sql<{ has: boolean }[]>`
    SELECT EXISTS (SELECT 1 FROM events WHERE xid >= ${end(sql)})
      OR EXISTS (SELECT 1 FROM event_readers WHERE xid >= ${end(sql)}) AS has`;
  return row?.has === true;
}

/**
 * Events are in the order of the ids of their transactions, which every cluster counts for itself: in one that a dump of another
 * was restored into, what was restored would stand behind all that comes, and not be seen. It is put in front, before anything
 * reads: all that is behind the same readers gets one transaction id below every real one, and keeps its own. Within it the order
 * is that of the ids then; nothing is read twice or left out. Replicas that start together take turns.
 * @returns whether there was anything to do
 */
export async function rebaseEvents(sql: Sql): Promise<boolean> {
  if (!(await hasForeignEvents(sql))) return false;
  return await sql.begin(async (transaction) => {
    await transaction`SELECT pg_advisory_xact_lock(${ADVISORY_LOCKS.migration})`;
    if (!(await hasForeignEvents(transaction))) return false;
    // Ids go on where they were in the dump: what this cluster has told since it was restored is behind.
    await transaction`
      WITH restored AS MATERIALIZED (
        SELECT max(id) AS last FROM events WHERE xid >= ${end(transaction)}
      ), places AS MATERIALIZED (
        SELECT name, xid, id, dense_rank() OVER (ORDER BY xid, id) AS place FROM event_readers, restored
        WHERE xid >= ${end(transaction)} OR id <= restored.last
      ), moved AS (
        UPDATE events SET xid = (
          SELECT count(DISTINCT place) FROM places WHERE (places.xid, places.id) < (events.xid, events.id)
        )::text::xid8
        FROM restored WHERE events.id <= restored.last
      )
      UPDATE event_readers SET xid = places.place::text::xid8, id = 0, update_time = now()
      FROM places WHERE event_readers.name = places.name`;
    return true;
  });
}
