import { ScheduleFiring_State as FiringState } from '@harrier/shared/gen/schedule';
import { ADVISORY_LOCKS } from '../advisory-locks.ts';
import type { AnySql, Sql } from '../sql.ts';

export interface ScheduleRow {
  id: string;
  tenant_id: string;
  name: string;
  /** harrier.v1.Schedule, encoded, without what has a column. */
  definition: Uint8Array;
  paused: boolean;
  anchor_time: Date;
  decided_time: Date;
  create_time: Date;
  update_time: Date;
}

/** What a caller says of a schedule, and what follows from it. */
export interface ScheduleContent {
  definition: Uint8Array;
  paused: boolean;
  anchorTime: Date;
  decidedTime: Date;
  nextDueTime: Date | undefined;
  updateTime: Date;
}

const columns = (sql: AnySql) =>
  sql`id, tenant_id, name, definition, paused, anchor_time, decided_time, create_time, update_time`;

/** The database's time: all decisions go by it, whichever replica makes them. In milliseconds since 1970. */
export async function databaseTimeMs(sql: AnySql): Promise<number> {
  const [row] = await sql<{ ms: number }[]>`SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::float8 AS ms`;
  if (row === undefined) throw new Error('the database did not tell the time');
  return row.ms;
}

/** @returns the row; undefined when the name is taken; `full` when the tenant has as many as it may */
export async function insertSchedule(
  sql: Sql,
  schedule: ScheduleContent & { id: string; tenantId: string; name: string; maxOfTenant: number },
): Promise<ScheduleRow | 'full' | undefined> {
  const { id, tenantId, name } = schedule;
  return await sql.begin(async (transaction) => {
    await transaction`SELECT pg_advisory_xact_lock(${ADVISORY_LOCKS.schedules}, hashtext(${tenantId}))`;
    const [count] = await transaction<{ schedules: number; taken: boolean }[]>`
      SELECT count(*)::int AS schedules, coalesce(bool_or(name = ${name}), false) AS taken
      FROM schedules WHERE tenant_id = ${tenantId} AND delete_time IS NULL`;
    if (count?.taken === true) return undefined;
    if ((count?.schedules ?? 0) >= schedule.maxOfTenant) return 'full';
    const [row] = await transaction<ScheduleRow[]>`
      INSERT INTO schedules (id, tenant_id, name, definition, paused, anchor_time, decided_time, next_due_time,
        create_time, update_time)
      VALUES (${id}, ${tenantId}, ${name}, ${schedule.definition}, ${schedule.paused}, ${schedule.anchorTime},
        ${schedule.decidedTime}, ${schedule.nextDueTime ?? null}, ${schedule.updateTime}, ${schedule.updateTime})
      RETURNING ${columns(transaction)}`;
    await tell(transaction, tenantId, 'schedule.created', { id, name });
    return row;
  });
}

export async function readSchedule(sql: Sql, tenantId: string, name: string): Promise<ScheduleRow | undefined> {
  const [row] = await sql<ScheduleRow[]>`
    SELECT ${columns(sql)} FROM schedules
    WHERE tenant_id = ${tenantId} AND name = ${name} AND delete_time IS NULL`;
  return row;
}

/** By name. */
export async function listSchedules(
  sql: Sql,
  filter: { tenantId: string; limit: number; after: string | undefined; namePrefix: string | undefined },
): Promise<ScheduleRow[]> {
  const { tenantId, limit, after, namePrefix } = filter;
  return await sql<ScheduleRow[]>`
    SELECT ${columns(sql)} FROM schedules
    WHERE tenant_id = ${tenantId} AND delete_time IS NULL
      ${after === undefined ? sql`` : sql`AND name > ${after}`}
      ${namePrefix === undefined ? sql`` : sql`AND starts_with(name, ${namePrefix})`}
    ORDER BY name LIMIT ${limit}`;
}

/**
 * Changes a schedule, one caller after the other and none while its times are being decided.
 * @param change what it says from now on, given what it said and the database's time; undefined: the same
 * @returns the row as it stands then; undefined: there is no such schedule
 */
export async function changeSchedule(
  sql: Sql,
  { tenantId, name }: { tenantId: string; name: string },
  change: (row: ScheduleRow, nowMs: number) => (ScheduleContent & { event: ScheduleEvent }) | undefined,
): Promise<ScheduleRow | undefined> {
  return await sql.begin(async (transaction) => {
    const [before] = await transaction<ScheduleRow[]>`
      SELECT ${columns(transaction)} FROM schedules
      WHERE tenant_id = ${tenantId} AND name = ${name} AND delete_time IS NULL FOR UPDATE`;
    if (before === undefined) return undefined;
    const content = change(before, await databaseTimeMs(transaction));
    if (content === undefined) return before;
    const [row] = await transaction<ScheduleRow[]>`
      UPDATE schedules SET definition = ${content.definition}, paused = ${content.paused},
        anchor_time = ${content.anchorTime}, decided_time = ${content.decidedTime},
        next_due_time = ${content.nextDueTime ?? null}, update_time = ${content.updateTime}
      WHERE tenant_id = ${tenantId} AND id = ${before.id} RETURNING ${columns(transaction)}`;
    if (content.paused !== before.paused) await holdFirings(transaction, before.id, content.paused);
    await tell(transaction, tenantId, content.event, { id: before.id, name });
    return row;
  });
}

/** What is to be started is not tried while its schedule is paused, and then at once. */
async function holdFirings(sql: AnySql, id: string, paused: boolean): Promise<void> {
  await sql`
    UPDATE schedule_firings SET try_time = ${paused ? null : sql`now()`}
    WHERE schedule_id = ${id} AND NOT over AND state = ${FiringState.PENDING}`;
}

type ScheduleEvent = 'schedule.created' | 'schedule.updated' | 'schedule.paused' | 'schedule.resumed';

/**
 * Deletes a schedule for everybody: nothing of it fires from then on, and its name is free. Its firings may be millions, and are
 * left to `clearDeletedSchedules`. Replicas of a version that does not know of that mark find none under its name either: until
 * the row is cleared it has one that no schedule can be given. @returns whether there was one
 */
export async function deleteSchedule(sql: Sql, tenantId: string, name: string): Promise<boolean> {
  return await sql.begin(async (transaction) => {
    const [row] = await transaction<{ id: string }[]>`
      UPDATE schedules SET delete_time = now(), name = 'deleted ' || id, paused = true, next_due_time = NULL
      WHERE tenant_id = ${tenantId} AND name = ${name} AND delete_time IS NULL RETURNING id`;
    if (row === undefined) return false;
    await holdFirings(transaction, row.id, true);
    await tell(transaction, tenantId, 'schedule.deleted', { id: row.id, name });
    return true;
  });
}

/** Deletes firings of deleted schedules, so many at most, and schedules without any. @returns whether some may be left */
export async function clearDeletedSchedules(sql: Sql, limit: number): Promise<boolean> {
  const [row] = await sql<{ schedules: number }[]>`
    WITH gone AS MATERIALIZED (
      SELECT id FROM schedules WHERE delete_time IS NOT NULL ORDER BY id LIMIT ${limit}
    ), firings AS (
      DELETE FROM schedule_firings WHERE (schedule_id, time) IN (
        SELECT f.schedule_id, f.time FROM gone JOIN schedule_firings AS f ON f.schedule_id = gone.id LIMIT ${limit})
      RETURNING 1
    ), cleared AS (
      DELETE FROM schedules USING gone WHERE schedules.id = gone.id AND (SELECT count(*) FROM firings) < ${limit}
    )
    SELECT count(*)::int AS schedules FROM gone`;
  return (row?.schedules ?? 0) > 0;
}

async function tell(
  sql: AnySql,
  tenantId: string,
  type: ScheduleEvent | 'schedule.deleted',
  data: { id: string; name: string },
): Promise<void> {
  await sql`INSERT INTO events (tenant_id, type, data) VALUES (${tenantId}, ${type}, ${JSON.stringify(data)}::text::jsonb)`;
}
