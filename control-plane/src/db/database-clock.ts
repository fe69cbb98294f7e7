import type { Sql } from './sql.ts';

/**
 * The time of the database on this replica: what it has said last, and what has passed since by a clock that nobody sets.
 * Replicas whose own clocks differ agree on it, but for the time that an answer takes.
 */
export class DatabaseClock {
  #offsetMs: number | undefined;

  get isKnown(): boolean {
    return this.#offsetMs !== undefined;
  }

  /** Whole milliseconds since 1970. @throws Error before it is known */
  get nowMs(): number {
    if (this.#offsetMs === undefined) throw new Error('the time of the database is not known yet');
    return Math.floor(performance.now() + this.#offsetMs);
  }

  /** @param databaseMs what the database has just answered to be the time, in milliseconds since 1970 */
  set(databaseMs: number): void {
    this.#offsetMs = databaseMs - performance.now();
  }

  /** Asks the database. */
  async ask(sql: Sql): Promise<void> {
    const [row] = await sql<[{ ms: number }]>`SELECT extract(epoch FROM clock_timestamp())::float8 * 1000 AS ms`;
    this.set(row.ms);
  }
}
