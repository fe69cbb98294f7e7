import { fromBinary } from '@bufbuild/protobuf';
import { failpoint, HarrierError, type Logger, messageOf } from '@harrier/shared';
import { type Schedule, ScheduleSchema } from '@harrier/shared/gen/schedule';
import { OutageLog } from '../db/outage-log.ts';
import {
  type ClaimedFiring,
  cancelSaid,
  claimFirings,
  type DueSchedule,
  decideSchedules,
  FIRING,
  listFiringsToCancel,
  type NewDecisions,
  nextFiring,
  putOffFiring,
  settleFiring,
} from '../db/queries/schedule-firings.ts';
import type { Sql } from '../db/sql.ts';
import { decide, type OpenFiring } from './decide.ts';
import { storedPlan } from './plan.ts';

/** How often is looked although nothing is due and nobody has said anything: a word of another replica may have been lost. */
const SLOW_LOOK_MS = 15_000;
/** How often is looked while something waits for the end of what another replica may see ending. */
const WAITING_LOOK_MS = 1_000;
/** Between two looks: what is due may be in the hands of another replica. */
const MIN_LOOK_MS = 100;
/** No longer while the database is away: what is due meanwhile fires late, and the less late the better. */
const AFTER_FAILURE_MS = 1_000;
/** Schedules that one transaction decides about. Each may have missed a thousand times. */
const SCHEDULES_AT_ONCE = 20;
const STARTS_AT_ONCE = 32;
/** Of them for one tenant: others have room beside one that has much to start. */
const STARTS_OF_TENANT = 16;
/** A start that nobody has heard the end of is tried again, here or elsewhere; by then it has failed, or has been accepted. */
const START_AGAIN_MS = 15_000;
/** Between two tries of what is refused for want of room, at most. */
const MAX_REFUSED_AGAIN_MS = 60_000;
/** A schedule that cannot be decided about. */
const BROKEN_AGAIN_MS = 60_000;
/** Of the idempotency keys of what schedules start. */
const KEY_PREFIX = 'schedule/';
const STARTING: Readonly<Record<number, OpenFiring['state']>> = {
  [FIRING.pending]: 'pending',
  [FIRING.queued]: 'queued',
  [FIRING.started]: 'started',
};

/** One time of a schedule to be started. */
export interface Firing {
  tenantId: string;
  name: string;
  time: Date;
  /** The same for every try: what has been accepted under it is not started again. */
  key: string;
  target: Schedule['target'];
}

/** What a schedule starts. */
export interface Target {
  executionId: string | undefined;
  runId: string | undefined;
}

/** What schedules start and stop. */
export interface Targets {
  /** @throws HarrierError `isFinalRefusal` tells whether another try can change it */
  start(firing: Firing): Promise<Target>;
  isFinalRefusal(error: unknown): boolean;
  /** Asks it to stop; that it has ended already is no error. */
  cancel(tenantId: string, target: Target, reason: string): Promise<void>;
}

export interface ScheduleRunnerOptions {
  sql: Sql;
  targets: Targets;
  /** What became of a time; `lateMs` of those that were started: behind the time that it was due. */
  onFiring: (outcome: 'started' | 'skipped' | 'failed', lateMs: number) => void;
  logger: Logger;
}

/**
 * Decides what becomes of times that are due, and starts what fires. Every replica does so: what is decided, and that it is to
 * be started, is stored in one transaction that holds the schedule; what is started carries a key.
 */
export class ScheduleRunner {
  readonly #options: ScheduleRunnerOptions;
  readonly #outage: OutageLog;
  #stopped = false;
  #timer: NodeJS.Timeout | undefined;
  #look: Promise<void> | undefined;
  #again = false;
  #restUntilMs = 0;
  /** Something waits for an end. */
  #waiting = false;
  /** Schedules that could not be decided about, and until when they are left alone. */
  readonly #broken = new Map<string, number>();

  constructor(options: ScheduleRunnerOptions) {
    this.#options = options;
    this.#outage = new OutageLog(options.logger, 'schedules are looked at again');
  }

  start(): void {
    this.wake();
  }

  /** What was accepted under an idempotency key has ended. */
  ended(key: string): void {
    if (this.#waiting && key.startsWith(KEY_PREFIX)) this.wake();
  }

  /** A schedule has changed. */
  wake(): void {
    if (this.#stopped) return;
    if (this.#look !== undefined) {
      this.#again = true;
      return;
    }
    clearTimeout(this.#timer);
    // However many say so, and however fast.
    const restMs = this.#restUntilMs - performance.now();
    if (restMs > 0) {
      this.#arm(restMs);
      return;
    }
    this.#again = false;
    this.#look = this.#run().then((waitMs) => {
      this.#look = undefined;
      this.#restUntilMs = performance.now() + MIN_LOOK_MS;
      this.#arm(this.#again ? MIN_LOOK_MS : waitMs);
    });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#look;
  }

  #arm(waitMs: number): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => this.wake(), waitMs);
    this.#timer.unref();
  }

  /** @returns after how long it is to be looked again */
  async #run(): Promise<number> {
    const { sql } = this.#options;
    try {
      // In turns: what one tenant has to be started, however much, keeps no schedule from being decided about.
      for (let more = true; more && !this.#stopped; ) {
        const decided = await this.#decide();
        const started = await this.#startDue();
        more = decided >= SCHEDULES_AT_ONCE || started > 0;
      }
      const cancelAgain = await this.#cancel();
      const { inMs, waiting } = await nextFiring(sql);
      this.#waiting = waiting;
      const patienceMs = waiting || cancelAgain ? WAITING_LOOK_MS : SLOW_LOOK_MS;
      return Math.min(patienceMs, Math.max(MIN_LOOK_MS, Math.ceil(inMs ?? patienceMs)));
    } catch (error) {
      if (!this.#stopped) this.#outage.failed('warn', 'schedules could not be looked at; trying again', error);
      return AFTER_FAILURE_MS;
    } finally {
      this.#outage.endRound();
    }
  }

  async #decide(): Promise<number> {
    const { sql, onFiring } = this.#options;
    for (const [id, untilMs] of this.#broken) if (untilMs <= Date.now()) this.#broken.delete(id);
    const options = { limit: SCHEDULES_AT_ONCE, broken: [...this.#broken.keys()] };
    const { schedules, skipped } = await decideSchedules(sql, options, (due) => this.#decisions(due));
    if (schedules > 0) failpoint('schedule-decided');
    for (let i = 0; i < skipped; i++) onFiring('skipped', 0);
    return schedules;
  }

  #decisions(due: DueSchedule): NewDecisions {
    const decidedMs = due.decided_time.getTime();
    try {
      const open = due.open.map(({ timeMs, state }) => ({ timeMs, state: STARTING[state] ?? 'started' }));
      const { firings, nextDueMs, ...decided } = decide(storedPlan(due), { nowMs: due.now_ms, decidedMs, open });
      return {
        ...decided,
        decidedTime: new Date(decided.decidedMs),
        nextDueTime: nextDueMs === undefined ? undefined : new Date(nextDueMs),
        firings: firings.map(({ timeMs, dueMs, state, sinceMs, message }) => {
          return { timeMs, dueMs, state: FIRING[state], sinceMs: sinceMs ?? null, message: message ?? null };
        }),
      };
    } catch (error) {
      // Others in the same transaction go on.
      this.#options.logger.error({ err: error, scheduleId: due.id }, `a schedule is broken: ${messageOf(error)}`);
      this.#broken.set(due.id, Date.now() + BROKEN_AGAIN_MS);
      const nextDueTime = new Date(due.now_ms + BROKEN_AGAIN_MS);
      return { decidedTime: due.decided_time, nextDueTime, firings: [], start: [], drop: [], cancel: [] };
    }
  }

  async #startDue(): Promise<number> {
    const claimed = await claimFirings(this.#options.sql, {
      limit: STARTS_AT_ONCE,
      ofTenant: STARTS_OF_TENANT,
      againMs: START_AGAIN_MS,
    });
    await Promise.all(claimed.map((firing) => this.#start(firing)));
    return claimed.length;
  }

  async #start(firing: ClaimedFiring): Promise<void> {
    const { sql, targets, onFiring, logger } = this.#options;
    const { schedule_id: scheduleId, tenant_id: tenantId, name, time } = firing;
    try {
      const { target } = fromBinary(ScheduleSchema, firing.definition);
      const key = `${KEY_PREFIX}${scheduleId}/${time.toISOString()}`;
      const { executionId, runId } = await targets.start({ tenantId, name, time, key, target });
      failpoint('schedule-started');
      const lateMs = await settleFiring(sql, firing, { state: 'started', executionId, runId });
      if (lateMs !== undefined) onFiring('started', lateMs);
    } catch (error) {
      const message = messageOf(error);
      if (targets.isFinalRefusal(error)) {
        const settled = await settleFiring(sql, firing, { state: 'failed', message });
        if (settled !== undefined) onFiring('failed', settled);
        return;
      }
      // The firing tells the reason; there may be many, and many tries.
      logger.debug(
        { scheduleId, schedule: name, time, reason: message },
        'a schedule cannot start anything now; trying again',
      );
      const againMs = (error instanceof HarrierError ? error.retryAfterMs : undefined) ?? AFTER_FAILURE_MS;
      await putOffFiring(sql, firing, { message, againMs, maxAgainMs: MAX_REFUSED_AGAIN_MS });
    }
  }

  /** @returns whether there is one to be cancelled again */
  async #cancel(): Promise<boolean> {
    const { sql, targets } = this.#options;
    const firings = await listFiringsToCancel(sql, STARTS_AT_ONCE);
    let failed = false;
    for (const firing of firings) {
      const { name, schedule_id: scheduleId, time } = firing;
      const target = { executionId: firing.execution_id ?? undefined, runId: firing.run_id ?? undefined };
      try {
        await targets.cancel(firing.tenant_id, target, `the schedule ${name} has come to its next time`);
        await cancelSaid(sql, firing);
      } catch (error) {
        // Those behind it go on.
        failed = true;
        const what = 'what a schedule has started cannot be cancelled now; trying again';
        this.#outage.failed('warn', what, error, { scheduleId, schedule: name, time });
      }
    }
    return failed || firings.length === STARTS_AT_ONCE;
  }
}
