import { type BackoffOptions, fullJitterMs, type Logger } from '@harrier/shared';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { OutageLog } from '../db/outage-log.ts';
import { startExecutions } from '../db/queries/start-executions.ts';
import { isRefused } from '../db/refused-for-good.ts';
import type { Sql } from '../db/sql.ts';
import type { StateChange, TrackedExecution } from './tracked-execution.ts';

/**
 * Attempts that are over within this time never have their PREPARING and RUNNING written: the final state says it all.
 * Watchers are told at once, from memory.
 */
const DELAY_MS = 100;

/** After a failure. A database that is away stays so for seconds, one that is full for minutes; nobody waits for these writes. */
const AGAIN: BackoffOptions = { initialMs: 500, maxMs: 5_000, multiplier: 2 };

/** Of one round. What the database refuses of one execution is looked for by halves, so that the others are stored. */
const MOST_STATEMENTS = 64;

interface Moved {
  tracked: TrackedExecution;
  change: StateChange;
  /** Since when it is in this state. */
  sinceMs: number;
}

/**
 * Writes the states of running attempts to the database, a little later and many at a time. What the database does not take is
 * written again, as long as the attempt is in that state: at most as much is kept as there is that runs.
 */
export class StateWriter {
  readonly #sql: Sql;
  readonly #outage: OutageLog;
  #waiting = new Map<TrackedExecution, Moved>();
  #timer: NodeJS.Timeout | undefined;
  #writing = false;
  #failures = 0;
  #stopped = false;

  constructor(sql: Sql, logger: Logger) {
    this.#sql = sql;
    this.#outage = new OutageLog(logger, 'running states are stored again');
  }

  /** The state of the execution changed. */
  add(tracked: TrackedExecution): void {
    this.#waiting.set(tracked, { tracked, change: tracked.current, sinceMs: performance.now() });
    if (!this.#writing) this.#arm(DELAY_MS);
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #arm(ms: number): void {
    if (!this.#stopped) this.#timer ??= setTimeout(() => void this.#flush(), ms);
  }

  async #flush(): Promise<void> {
    this.#timer = undefined;
    const moved = [...this.#waiting.values()].filter(
      ({ tracked, change }) => tracked.current === change && !tracked.ending,
    );
    this.#waiting = new Map();
    if (moved.length === 0) return;
    this.#writing = true;
    const { promise, resolve } = Promise.withResolvers<void>();
    for (const { tracked } of moved) tracked.storing = promise;
    const round = { left: MOST_STATEMENTS, untried: [] as Moved[], refused: [] as Moved[] };
    await this.#store(moved, round);
    if (round.untried.length + round.refused.length > 0) {
      // Those that were refused come last: they do not keep the others waiting, however many they are.
      const later = [...this.#waiting.values()];
      // A later state of the same may have come meanwhile: it takes the place.
      const again = [...round.untried, ...later, ...round.refused, ...later];
      this.#waiting = new Map(again.map((one) => [one.tracked, one]));
      this.#arm(DELAY_MS + fullJitterMs(this.#failures++, AGAIN));
    } else {
      this.#failures = 0;
      this.#outage.over();
    }
    this.#writing = false;
    resolve();
    if (this.#waiting.size > 0) this.#arm(DELAY_MS);
  }

  /** Never rejects: what is not stored is added to the round. */
  async #store(moved: Moved[], round: { left: number; untried: Moved[]; refused: Moved[] }): Promise<void> {
    if (round.left-- <= 0) {
      round.untried.push(...moved);
      return;
    }
    try {
      await startExecutions(this.#sql, rowsOf(moved), State.RUNNING);
    } catch (error) {
      this.#outage.failed('warn', 'running states could not be stored; trying again', error);
      if (!isRefused(error)) {
        round.left = 0;
        round.untried.push(...moved);
      } else if (moved.length === 1) {
        round.refused.push(...moved);
      } else {
        const half = Math.ceil(moved.length / 2);
        await this.#store(moved.slice(0, half), round);
        await this.#store(moved.slice(half), round);
      }
    }
  }
}

function rowsOf(moved: readonly Moved[]) {
  const nowMs = performance.now();
  return moved.map(({ tracked: { id, resolved }, change, sinceMs }) => ({
    id,
    tenant_id: resolved.tenantId,
    attempt: change.attempt,
    agent_id: change.agentId,
    state: change.state,
    age_ms: nowMs - sinceMs,
  }));
}
