import { type Logger, messageOf } from '@harrier/shared';
import { databaseErrorCode } from './database-away.ts';

/** What has been logged is logged again after this, with how often it has happened. */
const LOG_EVERY_MS = 30_000;
/** Some of what a loop does comes up less often than its rounds: the sweep of leases looks for lost agents every 15 s. */
const QUIET_MS = 20_000;

/**
 * The log of work that is done again and again until the database takes it: a cause is logged when it comes up, and then at most
 * every 30 s with its count, however often and by however many it is tried. What comes back within that time is counted too.
 */
export class OutageLog {
  readonly #logger: Logger;
  readonly #over: string;
  /** By what failed and why: what was logged when, and how often it has happened since. */
  readonly #causes = new Map<string, { loggedMs: number; more: number }>();
  /** Something was logged since it was last over. */
  #told = false;
  #failedMs = 0;

  /** @param over logged when what failed works again */
  constructor(logger: Logger, over: string) {
    this.#logger = logger;
    this.#over = over;
  }

  /**
   * @param what as it is logged: one of a few texts, since what is logged is counted by it
   * @param about of what: the first of those that a line of the log stands for is named there
   */
  failed(level: 'warn' | 'error', what: string, error: unknown, about: object = {}): void {
    const reason = messageOf(error);
    const cause = `${what} ${databaseErrorCode(error) || reason}`;
    const nowMs = performance.now();
    this.#failedMs = nowMs;
    const known = this.#causes.get(cause);
    if (known !== undefined && nowMs - known.loggedMs < LOG_EVERY_MS) {
      known.more++;
      return;
    }
    // What still fails is logged again long before this.
    for (const [key, { loggedMs }] of this.#causes) if (nowMs - loggedMs > 2 * LOG_EVERY_MS) this.#causes.delete(key);
    this.#causes.set(cause, { loggedMs: nowMs, more: 0 });
    const times = known === undefined ? {} : { times: known.more + 1 };
    this.#logger[level]({ ...about, reason, ...times }, what);
    this.#told = true;
  }

  /** For loops, when one round of theirs has ended, well or not: it is over when nothing has failed for a while. */
  endRound(): void {
    if (performance.now() - this.#failedMs >= QUIET_MS) this.over();
  }

  /** Nothing fails any more: logged if a failure was. */
  over(): void {
    if (!this.#told) return;
    this.#told = false;
    this.#logger.info(this.#over);
  }
}
