import type { Sql } from '../sql.ts';

/** How long the queue may be locked by somebody else before the attempt is given up. */
const LOCK_TIMEOUT_MS = 100;

/** Rows of the queue, and what is left of rows that have gone, as far as the statistics tell. */
export async function queueRows(sql: Sql): Promise<{ live: number; dead: number }> {
  const [row] = await sql<{ live: number; dead: number }[]>`
    SELECT n_live_tup AS live, n_dead_tup AS dead FROM pg_stat_user_tables WHERE relname = 'execution_queue'`;
  return row ?? { live: 0, dead: 0 };
}

/**
 * Writes the queue anew without what is left of rows that have gone. Vacuum does that too, but not while anybody in the whole
 * server has a transaction open that might still see them; every claim has to wade through them until then.
 * @returns whether it was done: false when somebody else had the queue for longer than a moment, as a dump has it to its end
 */
export async function compactQueue(sql: Sql): Promise<boolean> {
  try {
    await sql.begin(async (transaction) => {
      await transaction`SELECT set_config('lock_timeout', ${`${LOCK_TIMEOUT_MS}ms`}, true)`;
      await transaction`LOCK TABLE execution_queue IN ACCESS EXCLUSIVE MODE`;
      await transaction`CREATE TEMPORARY TABLE kept ON COMMIT DROP AS SELECT * FROM execution_queue`;
      await transaction`TRUNCATE execution_queue`;
      await transaction`INSERT INTO execution_queue SELECT * FROM kept`;
    });
    return true;
  } catch (error) {
    if ((error as { code?: string }).code === LOCK_NOT_AVAILABLE) return false;
    throw error;
  }
}

const LOCK_NOT_AVAILABLE = '55P03';
