import { type BackoffOptions, fullJitterMs, type Logger } from '@harrier/shared';
import { OutageLog } from '../db/outage-log.ts';
import { ChangeSignal } from './change-signal.ts';

/** A database that is full or takes no writes stays so for minutes; who waits alone after a restart must not wait for long. */
const BACKOFF: BackoffOptions = { initialMs: 200, maxMs: 5_000, multiplier: 2 };

export interface StoreOptions {
  /** What is stored, as in `a result could not be stored`: one of a few texts, since what is logged is counted by it. */
  what: string;
  /** Of what: the first of those that a line of the log stands for is named there. */
  about: { executionId: string; attempt: number };
  /** Whether trying again is of no use: the error is thrown. */
  isFinal: (error: unknown) => boolean;
}

/**
 * Writes that must not be lost to a database that is away, full, or takes no writes: each is made again and again, with pauses that
 * grow and have full jitter. When a write succeeds, all that wait are made at once. They share what they log (`OutageLog`).
 */
export class StoreRetries {
  readonly #log: OutageLog;
  readonly #stopping = new AbortController();
  readonly #takesWrites = new ChangeSignal();
  /** Writes that have failed, and will be made again. */
  #unstored = 0;
  #wokenMs = 0;

  constructor(logger: Logger) {
    this.#log = new OutageLog(logger, 'the database has taken all that could not be stored');
  }

  /** Aborted when nothing is tried again. */
  get stopping(): AbortSignal {
    return this.#stopping.signal;
  }

  /** Whoever waits to try again gets an error. */
  stop(): void {
    this.#stopping.abort(new Error('the control plane stops'));
  }

  /** Writes until it is written; a write may be made again though it was carried out. Rejects when it is stopped. */
  async store<Result>(options: StoreOptions, write: () => Promise<Result>): Promise<Result> {
    let failures = 0;
    try {
      for (; ; failures++) {
        try {
          const result = await write();
          this.#wakeAll(failures > 0);
          return result;
        } catch (error) {
          this.#stopping.signal.throwIfAborted();
          if (options.isFinal(error)) throw error;
          if (failures === 0) this.#unstored++;
          this.#log.failed('error', `${options.what} could not be stored; trying again`, error, options.about);
        }
        await this.#takesWrites.wait(this.#stopping.signal, fullJitterMs(failures, BACKOFF));
      }
    } finally {
      if (failures > 0 && --this.#unstored === 0 && !this.#stopping.signal.aborted) this.#log.over();
    }
  }

  /** For what is not to be tried again with the others. Rejects when it is stopped. */
  async pause(ms: number): Promise<void> {
    await new ChangeSignal().wait(this.#stopping.signal, ms);
  }

  /** @param wasWaiting what was written had waited; a write that had not says less about those that wait */
  #wakeAll(wasWaiting: boolean): void {
    const nowMs = performance.now();
    // What is refused while others are taken is not to be made again with each of them.
    if (!wasWaiting && nowMs - this.#wokenMs < BACKOFF.initialMs) return;
    this.#wokenMs = nowMs;
    this.#takesWrites.notify();
  }
}
