import { type Logger, messageOf } from '@harrier/shared';
import { ADVISORY_LOCKS } from '../db/advisory-locks.ts';
import { compactQueue, queueRows } from '../db/queries/compact-queue.ts';
import type { Sql } from '../db/sql.ts';

const LOOK_MS = 5_000;
/** So many rows that have gone cost a claim about 10 ms. */
const MAX_DEAD_ROWS = 20_000;
/** More could not be written anew in a moment; claims then cost little beside what waits. */
const MAX_LIVE_ROWS = 100_000;

export interface QueueCompactionOptions {
  sql: Sql;
  /** Runs a job unless another replica is at it. */
  runAlone: (key: number, job: () => Promise<void>) => Promise<boolean>;
  logger: Logger;
}

/** Keeps claims fast where vacuum cannot: while an old transaction is open somewhere, and between two of its rounds. */
export class QueueCompaction {
  readonly #options: QueueCompactionOptions;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(options: QueueCompactionOptions) {
    this.#options = options;
    this.#arm();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#looking;
  }

  #arm(): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => {
      this.#looking = this.#look();
    }, LOOK_MS);
    this.#timer.unref();
  }

  async #look(): Promise<void> {
    const { sql, runAlone, logger } = this.#options;
    try {
      const { live, dead } = await queueRows(sql);
      if (dead >= MAX_DEAD_ROWS && live <= MAX_LIVE_ROWS) {
        await runAlone(ADVISORY_LOCKS.queueCompaction, async () => {
          if (await compactQueue(sql)) logger.debug({ live, dead }, 'the queue was written anew');
        });
      }
    } catch (error) {
      logger.warn({ reason: messageOf(error) }, 'the queue could not be written anew; trying again');
    }
    this.#arm();
  }
}
