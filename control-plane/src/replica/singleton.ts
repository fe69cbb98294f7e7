import type { Sql } from '../db/sql.ts';

/**
 * Runs a job if no other replica is at it. The lock belongs to a transaction that does nothing else, so that it goes with the
 * connection or the process, whichever ends first. A job whose connection broke goes on, perhaps beside another one: what it
 * writes must bear that.
 * @param key a number that no other job takes
 * @returns whether it ran
 */
export async function runAlone(sql: Sql, key: number, job: () => Promise<void>): Promise<boolean> {
  return await sql.begin(async (transaction) => {
    const [row] = await transaction<{ got: boolean }[]>`SELECT pg_try_advisory_xact_lock(${key}) AS got`;
    if (row?.got !== true) return false;
    await job();
    return true;
  });
}
