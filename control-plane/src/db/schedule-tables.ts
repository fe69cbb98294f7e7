import { sql } from 'drizzle-orm';
import {
  boolean,
  customType,
  index,
  pgTable,
  primaryKey,
  smallint,
  text,
  timestamp,
  uniqueIndex,
  uuid,
} from 'drizzle-orm/pg-core';

const bytea = customType<{ data: Uint8Array }>({ dataType: () => 'bytea' });
/** Milliseconds, as they are counted outside: what is read is what was written. */
const time = (name: string) => timestamp(name, { withTimezone: true, precision: 3 });
const tenantId = () => uuid('tenant_id').notNull();

export const schedules = pgTable(
  'schedules',
  {
    /** UUIDv7. */
    id: uuid('id').primaryKey(),
    tenantId: tenantId(),
    name: text('name').notNull(),
    /** harrier.v1.Schedule, encoded, without what has a column. */
    definition: bytea('definition').notNull(),
    paused: boolean('paused').notNull(),
    /** From where its interval is counted. */
    anchorTime: time('anchor_time').notNull(),
    /** What became of the times up to this one is decided. */
    decidedTime: time('decided_time').notNull(),
    /** When the next time after that is due, with its jitter; null: there is none. */
    nextDueTime: time('next_due_time'),
    createTime: time('create_time').notNull(),
    updateTime: time('update_time').notNull(),
    /** It is gone for everybody: it is paused, its name is `deleted ID`, and its firings are deleted, then the row. */
    deleteTime: time('delete_time'),
  },
  (table) => [
    uniqueIndex('schedules_by_name').on(table.tenantId, table.name).where(sql`delete_time IS NULL`),
    index('schedules_deleted').on(table.id).where(sql`delete_time IS NOT NULL`),
    index('schedules_due').on(table.nextDueTime).where(sql`next_due_time IS NOT NULL AND NOT paused`),
  ],
);

/** What became of the times of schedules, one row for each that fires and for what was left out. */
export const scheduleFirings = pgTable(
  'schedule_firings',
  {
    tenantId: tenantId(),
    scheduleId: uuid('schedule_id')
      .notNull()
      .references(() => schedules.id, { onDelete: 'cascade' }),
    time: time('time').notNull(),
    dueTime: time('due_time').notNull(),
    /** ScheduleFiring.State */
    state: smallint('state').notNull(),
    executionId: uuid('execution_id'),
    runId: uuid('run_id'),
    /** It stands for all missed times from this one on. */
    sinceTime: time('since_time'),
    /** Why it was not started, or not yet. */
    message: text('message'),
    createTime: time('create_time').notNull().defaultNow(),
    startTime: time('start_time'),
    /** PENDING: when it is tried next; whoever tries puts it off first. Null while its schedule is paused. */
    tryTime: time('try_time'),
    /** Not STARTED, or what it started was seen to have ended. */
    over: boolean('over').notNull(),
    /** What it started is still to be cancelled. */
    cancel: boolean('cancel').notNull().default(false),
  },
  (table) => [
    primaryKey({ columns: [table.scheduleId, table.time] }),
    index('schedule_firings_open').on(table.scheduleId, table.time).where(sql`NOT over`),
    index('schedule_firings_pending').on(table.tryTime).where(sql`try_time IS NOT NULL`),
    index('schedule_firings_pending_of').on(table.tenantId, table.tryTime).where(sql`try_time IS NOT NULL`),
    index('schedule_firings_to_cancel').on(table.scheduleId, table.time).where(sql`cancel AND NOT over`),
    index('schedule_firings_queued').on(table.scheduleId, table.time).where(sql`state = 2`),
    index('schedule_firings_kept').on(table.tenantId, table.createTime),
  ],
);
