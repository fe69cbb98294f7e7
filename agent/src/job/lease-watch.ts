import type { Logger } from '@harrier/shared';
import type { AttemptTable } from './attempt-table.ts';

export interface LeaseWatchOptions {
  /** Whether the launcher stops attempts by itself. */
  isEnforced: () => boolean;
  lease: { readonly endMs: number | undefined; readonly graceMs: number };
  /** By the clock of the lease. */
  nowMs: () => number;
  table: Pick<AttemptTable, 'stopBeyondLease'>;
  logger: Logger;
}

/** Fine enough for a lease of seconds. */
const LOOK_MS = 200;

/** Stops attempts that go on beyond the lease, for launchers that are older than leases: as long as this process lives. */
export class LeaseWatch {
  readonly #options: LeaseWatchOptions;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: LeaseWatchOptions) {
    this.#options = options;
  }

  /** Another launcher answers. */
  onLauncher(): void {
    const { isEnforced, logger } = this.#options;
    if (isEnforced()) {
      this.stop();
    } else if (this.#timer === undefined) {
      logger.warn('the launcher is older than leases: attempts end with the lease only while this agent lives');
      this.#timer = setInterval(() => this.#look(), LOOK_MS);
    }
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #look(): void {
    const { lease, nowMs, table } = this.#options;
    if (lease.endMs !== undefined) table.stopBeyondLease(nowMs() - lease.endMs + lease.graceMs, lease.graceMs / 2);
  }
}
