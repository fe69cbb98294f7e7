import type { Logger } from '@harrier/shared';
import type { AgentConfig } from './config.ts';
import type { AttemptTable } from './job/attempt-table.ts';
import type { Launcher } from './launcher/launcher.ts';

/** Between asking code to stop and killing it, when the agent must not wait any longer. */
const CANCEL_GRACE_MS = 5_000;
/** Beyond the grace of a cancel: for the kill, the result and its way to the control plane. */
const SETTLE_MS = 3_000;

export interface StopParts {
  config: Pick<AgentConfig, 'stopGraceMs' | 'stopLauncher'>;
  table: Pick<AttemptTable, 'active' | 'cancelAll' | 'giveBackPreparations' | 'setClosed'>;
  launcher: Pick<Launcher, 'stop'>;
  /** Nothing runs and, while there is a link, every result is stored. */
  isQuiet: () => boolean;
  /** Tells the control plane that no work is taken any more. */
  announce: () => void;
  logger: Logger;
}

/**
 * How the agent stops:
 *
 *   running ──request──▶ finishing ──quiet, or grace over──▶ stopped
 *      │                     └──second request──▶ cancelling ──quiet──▶ stopped
 *      └──not wanted──▶ stopped
 *
 * - finishing: no new work is taken, what runs may end;
 * - cancelling: what runs is stopped, what has not begun to run is given back;
 * - stopped: what still runs is left to the launcher for the next agent, unless the launcher is to stop too.
 */
export type StopState = 'running' | 'finishing' | 'cancelling' | 'stopped';

export class Stopper {
  readonly #parts: StopParts;
  #state: StopState = 'running';
  /** Wakes the wait that is going on. */
  #wake: () => void = () => {};

  constructor(parts: StopParts) {
    this.#parts = parts;
  }

  get state(): StopState {
    return this.#state;
  }

  /** Something ended or was stored. */
  notice(): void {
    if (this.#state !== 'running' && this.#parts.isQuiet()) this.#wake();
  }

  /** Lets running work end; a second request stops it. Resolves when the agent may go. */
  async stop(): Promise<void> {
    const { config, table, launcher, logger } = this.#parts;
    table.setClosed('the agent is stopping');
    this.#setState('finishing');
    logger.info({ active: table.active, graceMs: config.stopGraceMs }, 'stopping');
    this.#parts.announce();
    await this.#quiet(config.stopGraceMs);
    if (this.#state === 'cancelling' || (config.stopLauncher && table.active > 0)) {
      this.#setState('cancelling');
      // While the link is there: what was told to end would have failed although nothing of it has run.
      table.giveBackPreparations();
      logger.warn({ active: table.active }, 'cancelling what runs');
      table.cancelAll(CANCEL_GRACE_MS);
      await this.#quiet(CANCEL_GRACE_MS + SETTLE_MS);
    }
    this.#setState('stopped');
    if (config.stopLauncher) await within(SETTLE_MS, launcher.stop(0));
    else if (table.active > 0) logger.warn({ active: table.active }, 'the launcher goes on with what runs');
  }

  /** The control plane does not want this agent: what still runs belongs to nobody, and is killed. */
  async abandon(): Promise<void> {
    const { config, table, launcher } = this.#parts;
    table.setClosed('the agent is not wanted');
    table.cancelAll(0, true);
    this.#setState('stopped');
    this.#wake();
    if (config.stopLauncher) await within(SETTLE_MS, launcher.stop(0));
  }

  /** A second request: what runs is stopped now. */
  hurry(): void {
    if (this.#state !== 'finishing') return;
    this.#setState('cancelling');
    this.#wake();
  }

  #setState(next: StopState): void {
    this.#state = next;
  }

  #quiet(deadlineMs: number): Promise<void> {
    if (this.#parts.isQuiet()) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    return within(deadlineMs, promise);
  }
}

/** Resolves with the promise, or at the deadline. */
async function within(deadlineMs: number, promise: Promise<void>): Promise<void> {
  const deadline = Promise.withResolvers<void>();
  const timer = setTimeout(deadline.resolve, deadlineMs);
  await Promise.race([promise, deadline.promise]);
  clearTimeout(timer);
}
