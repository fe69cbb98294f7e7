import { setTimeout as wait } from 'node:timers/promises';
import { type Logger, messageOf } from '@harrier/shared';
import { ADVISORY_LOCKS } from '../db/advisory-locks.ts';
import { BEFORE_ALL_EVENTS, readerPosition } from '../db/queries/events.ts';
import {
  clearRemains,
  countStoredBytes,
  type Deleted,
  deleteEvents,
  deleteExpired,
  deleteLogs,
  deleteReaders,
  listTenantRetention,
  type TenantRetention,
} from '../db/queries/retention.ts';
import { deleteFirings } from '../db/queries/schedule-firings.ts';
import { clearDeletedSchedules } from '../db/queries/schedules.ts';
import type { Sql } from '../db/sql.ts';

/** How often what is over is looked through. Space is counted as often: a tenant may be above its maximum for so long. */
const PASS_MS = 60_000;
const DAY_MS = 86_400_000;
const EXECUTIONS_A_BATCH = 500;
/** Nodes of runs, and lines of their logs. */
const REMAINS_A_BATCH = 5_000;
const EVENTS_A_BATCH = 5_000;
const FIRINGS_A_BATCH = 5_000;
/** Log bytes that one statement deletes, at most about. */
const LOG_BYTES_A_BATCH = 64 * 1024 * 1024;
/** A reader of events that has not come for so long has gone for good. */
const READER_SILENCE_MS = 7 * DAY_MS;
/** Of so many passes one looks for logs from the start. */
const PASSES_FROM_THE_START = 60;
const READER = 'retention';
const FIRST_ID = '00000000-0000-0000-0000-000000000000';

export interface RetentionSettings {
  /** Days that executions, runs of workflows, and firings of schedules are kept after their end; 0: for ever. */
  executionDays: number;
  /** Days that their logs are kept; 0: as long as they are. */
  logDays: number;
  /** Days that events are kept; 0: for ever. */
  eventDays: number;
  /** Bytes that the finished executions and runs of one tenant may take, beyond which the oldest go; 0: any number. */
  maxBytes: number;
}

export interface RetentionOptions {
  sql: Sql;
  settings: RetentionSettings;
  /** Runs a job unless another replica is at it. */
  runAlone: (key: number, job: () => Promise<void>) => Promise<boolean>;
  logger: Logger;
}

/**
 * Deletes what has been kept for long enough: executions with all that belongs to them, runs of workflows, firings of schedules,
 * logs, events; by age, and executions and runs also by the space that their tenant takes. In small batches with a pause as
 * long as each took, so that it takes no more than half of one connection, and only on one replica at a time.
 */
export class Retention {
  readonly #options: RetentionOptions;
  readonly #stopping = new AbortController();
  /** By tenant, up to where the logs were deleted by earlier passes: those rows stay, and need not be looked at each time. */
  readonly #logsDeletedTo = new Map<string, string>();
  #passes = 0;
  #timer: NodeJS.Timeout | undefined;
  #pass: Promise<void> = Promise.resolve();

  constructor(options: RetentionOptions) {
    this.#options = options;
    this.#arm();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    clearTimeout(this.#timer);
    await this.#pass;
  }

  #arm(): void {
    if (this.#stopping.signal.aborted) return;
    this.#timer = setTimeout(() => {
      this.#pass = this.#run();
    }, PASS_MS);
    this.#timer.unref();
  }

  async #run(): Promise<void> {
    try {
      await this.#options.runAlone(ADVISORY_LOCKS.retention, () => this.runOnce());
    } catch (error) {
      if (!this.#stopping.signal.aborted) {
        this.#options.logger.warn({ reason: messageOf(error) }, 'what is too old could not be deleted; trying again');
      }
    }
    this.#arm();
  }

  /** One pass: clears deleted schedules, counts space, then deletes what is over its age or its tenant's space. */
  async runOnce(): Promise<void> {
    const { sql, settings, logger } = this.#options;
    // What ended late stands before that.
    if (this.#passes++ % PASSES_FROM_THE_START === 0) this.#logsDeletedTo.clear();
    for (const reader of await deleteReaders(sql, READER_SILENCE_MS)) {
      logger.warn({ reader }, 'a reader of events has not come for a week; events are not kept for it any more');
    }
    // Before the tenants, of which one may have much that is too old, or fail.
    await this.#repeat(() => clearDeletedSchedules(sql, FIRINGS_A_BATCH));
    await this.#count();
    for (const tenant of await listTenantRetention(sql)) await this.#tidy(tenant);
    await this.#repeat(() => clearRemains(sql, REMAINS_A_BATCH));
    if (settings.eventDays > 0) {
      await this.#repeat(async () => {
        const deleted = await deleteEvents(sql, settings.eventDays * DAY_MS, EVENTS_A_BATCH);
        return deleted === EVENTS_A_BATCH;
      });
    }
  }

  async #count(): Promise<void> {
    const { sql } = this.#options;
    let position = (await readerPosition(sql, READER)) ?? BEFORE_ALL_EVENTS;
    await this.#repeat(async () => {
      const counted = await countStoredBytes(sql, READER, position, EVENTS_A_BATCH);
      position = counted.position;
      return counted.events === EVENTS_A_BATCH;
    });
  }

  async #tidy(tenant: TenantRetention): Promise<void> {
    const { sql, settings, logger } = this.#options;
    const tenantId = tenant.id;
    const executionDays = tenant.execution_retention_days ?? settings.executionDays;
    const logDays = tenant.log_retention_days ?? settings.logDays;
    const maxBytes = tenant.max_stored_bytes ?? settings.maxBytes;
    const batch = { tenantId, limit: EXECUTIONS_A_BATCH, maxLogBytes: LOG_BYTES_A_BATCH };
    let executions = 0;
    let runs = 0;
    let bytes = 0;
    const note = (deleted: Deleted) => {
      executions += deleted.executions;
      runs += deleted.runs;
      bytes += deleted.bytes;
    };
    if (executionDays > 0) {
      await this.#inOrder(async (after) => {
        const deleted = await deleteExpired(sql, { ...batch, olderThanMs: executionDays * DAY_MS, after });
        note(deleted);
        return deleted;
      });
    }
    if (executionDays > 0) {
      await this.#repeat(async () => {
        const firings = { tenantId, olderThanMs: executionDays * DAY_MS, limit: FIRINGS_A_BATCH };
        return (await deleteFirings(sql, firings)) === FIRINGS_A_BATCH;
      });
    }
    if (logDays > 0) {
      await this.#inOrder(async (after) => {
        const deleted = await deleteLogs(sql, { ...batch, olderThanMs: logDays * DAY_MS, after });
        bytes += deleted.bytes;
        if (deleted.last !== null) this.#logsDeletedTo.set(tenantId, deleted.last);
        return deleted;
      }, this.#logsDeletedTo.get(tenantId));
    }
    let excess = maxBytes > 0 ? tenant.stored_bytes - bytes - maxBytes : 0;
    if (excess > 0) {
      await this.#inOrder(async (after) => {
        const deleted = await deleteExpired(sql, { ...batch, olderThanMs: 0, after, maxBytes: excess });
        note(deleted);
        excess -= deleted.bytes;
        return excess > 0 ? deleted : { ...deleted, last: null };
      });
    }
    if (executions + runs + bytes > 0)
      logger.info({ tenantId, executions, runs, bytes }, 'what was kept for long enough was deleted');
  }

  /** Batch after batch, each behind the last id of the one before. */
  async #inOrder(next: (after: string) => Promise<Pick<Deleted, 'last'>>, from = FIRST_ID): Promise<void> {
    let after = from;
    await this.#repeat(async () => {
      const { last } = await next(after);
      if (last === null) return false;
      after = last;
      return true;
    });
  }

  async #repeat(next: () => Promise<boolean>): Promise<void> {
    const { signal } = this.#stopping;
    while (true) {
      signal.throwIfAborted();
      const startedMs = performance.now();
      if (!(await next())) return;
      await wait(performance.now() - startedMs, undefined, { signal });
    }
  }
}
