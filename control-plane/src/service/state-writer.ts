import { type Logger, messageOf } from '@harrier/shared';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { startExecutions } from '../db/queries/start-executions.ts';
import type { Sql } from '../db/sql.ts';
import type { TrackedExecution } from './tracked-execution.ts';

/**
 * Attempts that are over within this time never have their PREPARING and RUNNING written: the final state says it all.
 * Watchers are told at once, from memory.
 */
const DELAY_MS = 100;

/** Writes the states of running attempts to the database, a little later and many at a time. */
export class StateWriter {
  readonly #sql: Sql;
  readonly #logger: Logger;
  readonly #waiting = new Set<TrackedExecution>();
  #timer: NodeJS.Timeout | undefined;

  constructor(sql: Sql, logger: Logger) {
    this.#sql = sql;
    this.#logger = logger;
  }

  /** The state of the execution changed. */
  add(tracked: TrackedExecution): void {
    this.#waiting.add(tracked);
    this.#timer ??= setTimeout(() => void this.#flush(), DELAY_MS);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  async #flush(): Promise<void> {
    this.#timer = undefined;
    const moved = [...this.#waiting].filter(
      ({ current, ending }) => !ending && (current.state === State.RUNNING || current.state === State.PREPARING),
    );
    this.#waiting.clear();
    if (moved.length === 0) return;
    const rows = moved.map(({ id, resolved, current }) => ({
      id,
      tenant_id: resolved.tenantId,
      attempt: current.attempt,
      state: current.state,
    }));
    const { promise, resolve } = Promise.withResolvers<void>();
    for (const tracked of moved) tracked.storing = promise;
    try {
      await startExecutions(this.#sql, rows, State.RUNNING);
    } catch (error) {
      this.#logger.warn({ reason: messageOf(error) }, 'running states could not be stored; the results will tell');
    } finally {
      resolve();
    }
  }
}
