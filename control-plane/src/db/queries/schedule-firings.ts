import { failpoint } from '@harrier/shared';
import type { AnySql, Sql } from '../sql.ts';
import type { ScheduleRow } from './schedules.ts';

/** Numbers of harrier.v1.ScheduleFiring.State. */
export const FIRING = { pending: 1, queued: 2, started: 3, skipped: 4, failed: 5 } as const;

/** A replica that hangs while it decides holds the schedules that it has locked no longer. */
const DECIDE_TIMEOUT = '10s';

export interface FiringRow {
  schedule_id: string;
  time: Date;
  due_time: Date;
  state: number;
  since_time: Date | null;
  execution_id: string | null;
  run_id: string | null;
  message: string | null;
  create_time: Date;
  start_time: Date | null;
}

export interface DueSchedule extends ScheduleRow {
  /** The database's time. */
  now_ms: number;
  /** Firings that are not over, in the order of their times. */
  open: { timeMs: number; state: number }[];
}

/** What becomes of times of a schedule. */
export interface NewDecisions {
  decidedTime: Date;
  nextDueTime: Date | undefined;
  firings: { timeMs: number; dueMs: number; state: number; sinceMs: number | null; message: string | null }[];
  start: number[];
  drop: { timeMs: number; message: string }[];
  cancel: number[];
}

/** Written out, since an index holds only those: a statement with a parameter could not use it. */
const isQueued = (sql: AnySql) => sql`state = ${sql.unsafe(String(FIRING.queued))}`;

/** Whether a firing, named f, is about to be started, or what it started has not ended. */
const isUnderWay = (sql: AnySql) => sql`(f.state = ${FIRING.pending} OR f.state = ${FIRING.started} AND (
  EXISTS (SELECT FROM executions AS e WHERE e.tenant_id = f.tenant_id AND e.id = f.execution_id AND e.end_time IS NULL)
  OR EXISTS (SELECT FROM workflow_runs AS r WHERE r.tenant_id = f.tenant_id AND r.id = f.run_id AND r.end_time IS NULL)))`;

/**
 * Decides about schedules of which a time is due, or something waits and can be started. In one transaction, while no other
 * replica can decide about them: what is decided is decided once.
 * @param limit schedules of either kind at once
 * @param broken schedules that nothing can be decided about for now, although something of theirs may wait
 * @returns how many schedules there were, at most twice the limit, and how many times were skipped
 */
export async function decideSchedules(
  sql: Sql,
  { limit, broken }: { limit: number; broken: readonly string[] },
  decide: (schedule: DueSchedule) => NewDecisions,
): Promise<{ schedules: number; skipped: number }> {
  return await sql.begin(async (transaction) => {
    await transaction`SELECT set_config('idle_in_transaction_session_timeout', ${DECIDE_TIMEOUT}, true)`;
    // As they were locked: read by the statement's own view, one could be as it was before another replica decided about it.
    const schedules = await transaction<Omit<DueSchedule, 'open'>[]>`
      WITH due AS (
        SELECT * FROM schedules WHERE next_due_time <= clock_timestamp() AND NOT paused AND delete_time IS NULL
        ORDER BY next_due_time LIMIT ${limit} FOR UPDATE SKIP LOCKED
      ), free AS (
        SELECT * FROM schedules AS s
        WHERE NOT paused AND delete_time IS NULL AND id <> ALL(${[...broken]}::uuid[])
          AND id IN (SELECT schedule_id FROM schedule_firings WHERE ${isQueued(transaction)})
          AND NOT EXISTS (SELECT FROM schedule_firings AS f
            WHERE f.schedule_id = s.id AND NOT f.over AND ${isUnderWay(transaction)})
        LIMIT ${limit} FOR UPDATE SKIP LOCKED
      )
      SELECT id, tenant_id, name, definition, paused, anchor_time, decided_time, create_time, update_time,
        floor(extract(epoch FROM clock_timestamp()) * 1000)::float8 AS now_ms
      FROM (SELECT * FROM due UNION ALL SELECT * FROM free WHERE id NOT IN (SELECT id FROM due)) AS locked`;
    let skipped = 0;
    if (schedules.length === 0) return { schedules: 0, skipped };
    const ids = schedules.map(({ id }) => id);
    await transaction`
      UPDATE schedule_firings AS f SET over = true, cancel = false
      WHERE schedule_id = ANY(${ids}::uuid[]) AND NOT over AND state = ${FIRING.started} AND NOT ${isUnderWay(transaction)}`;
    const open = await transaction<{ schedule_id: string; time: Date; state: number }[]>`
      SELECT schedule_id, time, state FROM schedule_firings
      WHERE schedule_id = ANY(${ids}::uuid[]) AND NOT over ORDER BY time`;
    const openOf = Map.groupBy(open, (firing) => firing.schedule_id);
    for (const schedule of schedules) {
      const firings = openOf.get(schedule.id) ?? [];
      const decisions = decide({
        ...schedule,
        open: firings.map(({ time, state }) => ({ timeMs: time.getTime(), state })),
      });
      await storeDecisions(transaction, schedule, decisions);
      failpoint('schedule-before-commit');
      skipped += decisions.drop.length + decisions.firings.filter(({ state }) => state === FIRING.skipped).length;
    }
    return { schedules: schedules.length, skipped };
  });
}

async function storeDecisions(
  sql: AnySql,
  { id, tenant_id: tenantId, name }: Pick<ScheduleRow, 'id' | 'tenant_id' | 'name'>,
  { decidedTime, nextDueTime, firings, start, drop, cancel }: NewDecisions,
): Promise<void> {
  await sql`UPDATE schedules SET decided_time = ${decidedTime}, next_due_time = ${nextDueTime ?? null} WHERE id = ${id}`;
  const given = { firings, start, drop, cancel };
  if (Object.values(given).every((part) => part.length === 0)) return;
  await sql`
    WITH given AS MATERIALIZED (SELECT ${JSON.stringify(given)}::text::json AS d
    ), decided AS (
      INSERT INTO schedule_firings (tenant_id, schedule_id, time, due_time, state, since_time, message, try_time, over)
      SELECT ${tenantId}::uuid, ${id}::uuid, to_timestamp("timeMs" / 1000), to_timestamp("dueMs" / 1000), state,
        to_timestamp("sinceMs" / 1000), message, CASE WHEN state = ${FIRING.pending} THEN now() END,
        state = ${FIRING.skipped}
      FROM given, json_to_recordset(d -> 'firings')
        AS firing("timeMs" float8, "dueMs" float8, state smallint, "sinceMs" float8, message text)
      RETURNING time, state, message
    ), dropped AS (
      UPDATE schedule_firings AS f SET state = ${FIRING.skipped}, over = true, message = drop.message
      FROM given, json_to_recordset(d -> 'drop') AS drop("timeMs" float8, message text)
      WHERE f.schedule_id = ${id} AND f.time = to_timestamp("timeMs" / 1000)::timestamptz(3) AND f.state = ${FIRING.queued}
      RETURNING f.time, f.state, f.message
    ), begun AS (
      UPDATE schedule_firings AS f SET state = ${FIRING.pending}, try_time = now()
      FROM given, json_array_elements_text(d -> 'start') AS ms
      WHERE f.schedule_id = ${id} AND f.time = to_timestamp(ms::float8 / 1000)::timestamptz(3) AND f.state = ${FIRING.queued}
    ), cancelled AS (
      UPDATE schedule_firings AS f SET cancel = true
      FROM given, json_array_elements_text(d -> 'cancel') AS ms
      WHERE f.schedule_id = ${id} AND f.time = to_timestamp(ms::float8 / 1000)::timestamptz(3) AND NOT f.over
    )
    INSERT INTO events (tenant_id, type, data)
    SELECT ${tenantId}::uuid, 'schedule.skipped', jsonb_build_object('id', ${id}::text, 'name', ${name}::text,
      'time', time, 'reason', message)
    FROM (SELECT * FROM decided UNION ALL SELECT * FROM dropped) AS skipped WHERE state = ${FIRING.skipped} ORDER BY time`;
}

/** A firing that this replica starts now, with the schedule as it is. */
export interface ClaimedFiring {
  schedule_id: string;
  tenant_id: string;
  time: Date;
  name: string;
  definition: Uint8Array;
}

/**
 * Takes firings that are to be started, at most `ofTenant` of each tenant, and tenants in no order: however many one has, each
 * has its turn. If the replica ends before it is done, others try after a while: what is started has
 * an idempotency key.
 */
export async function claimFirings(
  sql: Sql,
  { limit, ofTenant, againMs }: { limit: number; ofTenant: number; againMs: number },
): Promise<ClaimedFiring[]> {
  return await sql<ClaimedFiring[]>`
    WITH RECURSIVE tenants AS (
      (SELECT tenant_id FROM schedule_firings WHERE try_time IS NOT NULL ORDER BY tenant_id LIMIT 1)
      UNION ALL
      SELECT (SELECT f.tenant_id FROM schedule_firings AS f WHERE f.try_time IS NOT NULL AND f.tenant_id > t.tenant_id
        ORDER BY f.tenant_id LIMIT 1)
      FROM tenants AS t WHERE t.tenant_id IS NOT NULL
    ), due AS (
      SELECT f.schedule_id, f.time
      FROM (SELECT tenant_id FROM tenants WHERE tenant_id IS NOT NULL ORDER BY random()) AS t
      CROSS JOIN LATERAL (
        SELECT schedule_id, time FROM schedule_firings WHERE tenant_id = t.tenant_id AND try_time <= now()
        ORDER BY try_time, time LIMIT ${ofTenant} FOR UPDATE SKIP LOCKED
      ) AS f LIMIT ${limit}
    )
    UPDATE schedule_firings AS f SET try_time = now() + ${againMs}::float8 * interval '1 ms'
    FROM due, schedules AS s
    WHERE f.schedule_id = due.schedule_id AND f.time = due.time AND s.id = f.schedule_id
    RETURNING f.schedule_id, f.tenant_id, f.time, s.name, s.definition`;
}

/** What has been accepted under the key of a firing. @returns undefined: nothing */
export async function findStarted(
  sql: Sql,
  tenantId: string,
  key: string,
): Promise<{ executionId: string | undefined; runId: string | undefined } | undefined> {
  const [row] = await sql<{ execution_id: string | null; run_id: string | null }[]>`
    SELECT (SELECT id FROM executions WHERE tenant_id = ${tenantId} AND idempotency_key = ${key}) AS execution_id,
      (SELECT id FROM workflow_runs WHERE tenant_id = ${tenantId} AND idempotency_key = ${key}) AS run_id`;
  if (row === undefined || (row.execution_id === null && row.run_id === null)) return undefined;
  return { executionId: row.execution_id ?? undefined, runId: row.run_id ?? undefined };
}

export type FiringEnd =
  | { state: 'started'; executionId: string | undefined; runId: string | undefined }
  | { state: 'failed'; message: string };

/**
 * Also of a schedule that has been deleted meanwhile, as long as the record is there.
 * @returns how late it was, in milliseconds; undefined: it was settled before, or its schedule was deleted and the record cleared
 */
export async function settleFiring(
  sql: Sql,
  { schedule_id: scheduleId, time, name }: ClaimedFiring,
  end: FiringEnd,
): Promise<number | undefined> {
  const isStarted = end.state === 'started';
  const [row] = await sql<{ late_ms: number }[]>`
    WITH settled AS (
      UPDATE schedule_firings SET state = ${FIRING[end.state]}, try_time = NULL, over = ${!isStarted},
        execution_id = ${isStarted ? (end.executionId ?? null) : null}, run_id = ${isStarted ? (end.runId ?? null) : null},
        start_time = ${isStarted ? sql`now()` : null}, message = ${isStarted ? null : end.message}
      WHERE schedule_id = ${scheduleId} AND time = ${time} AND state = ${FIRING.pending}
      RETURNING *
    ), told AS (
      INSERT INTO events (tenant_id, type, execution_id, data)
      SELECT tenant_id, ${isStarted ? 'schedule.fired' : 'schedule.failed'}, execution_id,
        jsonb_strip_nulls(jsonb_build_object('id', schedule_id, 'name', ${name}::text, 'time', time, 'run', run_id,
          'reason', message))
      FROM settled
    )
    SELECT (extract(epoch FROM now() - due_time) * 1000)::float8 AS late_ms FROM settled`;
  return row?.late_ms;
}

/** It cannot be started now; nor is it tried again when its schedule has been paused. What has been refused for long is tried less and less often. */
export async function putOffFiring(
  sql: Sql,
  { schedule_id: scheduleId, time }: ClaimedFiring,
  { message, againMs, maxAgainMs }: { message: string; againMs: number; maxAgainMs: number },
): Promise<void> {
  await sql`
    UPDATE schedule_firings SET message = ${message}, try_time = now() + greatest(${againMs}::float8 * interval '1 ms',
      least(${maxAgainMs}::float8 * interval '1 ms', (now() - due_time) / 4))
    WHERE schedule_id = ${scheduleId} AND time = ${time} AND state = ${FIRING.pending} AND try_time IS NOT NULL`;
}

export interface FiringToCancel {
  schedule_id: string;
  tenant_id: string;
  time: Date;
  name: string;
  execution_id: string | null;
  run_id: string | null;
}

/** Started firings of which somebody has yet to say that they are to stop; in no order, so that none stands before another. */
export async function listFiringsToCancel(sql: Sql, limit: number): Promise<FiringToCancel[]> {
  return await sql<FiringToCancel[]>`
    SELECT f.schedule_id, f.tenant_id, f.time, s.name, f.execution_id, f.run_id
    FROM schedule_firings AS f JOIN schedules AS s ON s.id = f.schedule_id
    WHERE s.delete_time IS NULL AND f.cancel AND NOT f.over AND f.state = ${FIRING.started} ORDER BY random() LIMIT ${limit}`;
}

export async function cancelSaid(sql: Sql, { schedule_id: scheduleId, time }: FiringToCancel): Promise<void> {
  await sql`UPDATE schedule_firings SET cancel = false WHERE schedule_id = ${scheduleId} AND time = ${time}`;
}

/** When something is to be done next: in so many milliseconds, undefined: never; and whether something waits for an end. */
export async function nextFiring(sql: Sql): Promise<{ inMs: number | undefined; waiting: boolean }> {
  const [row] = await sql<{ in_ms: number | null; waiting: boolean }[]>`
    SELECT (extract(epoch FROM least(
        (SELECT min(next_due_time) FROM schedules WHERE next_due_time IS NOT NULL AND NOT paused AND delete_time IS NULL),
        (SELECT min(try_time) FROM schedule_firings WHERE try_time IS NOT NULL)
      ) - clock_timestamp()) * 1000)::float8 AS in_ms,
      EXISTS (SELECT FROM schedule_firings JOIN schedules ON schedules.id = schedule_id
        WHERE ${isQueued(sql)} AND NOT paused AND delete_time IS NULL) AS waiting`;
  return { inMs: row?.in_ms ?? undefined, waiting: row?.waiting ?? false };
}

/** The latest first. */
export async function listFirings(
  sql: Sql,
  filter: { tenantId: string; scheduleId: string; limit: number; before: Date | undefined; state: number | undefined },
): Promise<FiringRow[]> {
  const { tenantId, scheduleId, limit, before, state } = filter;
  return await sql<FiringRow[]>`
    SELECT schedule_id, time, due_time, state, since_time, execution_id, run_id, message, create_time, start_time
    FROM schedule_firings
    WHERE tenant_id = ${tenantId} AND schedule_id = ${scheduleId}
      ${before === undefined ? sql`` : sql`AND time < ${before}`}
      ${state === undefined ? sql`` : sql`AND state = ${state}`}
    ORDER BY time DESC LIMIT ${limit}`;
}

/** Deletes records of firings that are over, of a tenant, the oldest first. @returns how many */
export async function deleteFirings(
  sql: Sql,
  { tenantId, olderThanMs, limit }: { tenantId: string; olderThanMs: number; limit: number },
): Promise<number> {
  const rows = await sql`
    DELETE FROM schedule_firings AS gone USING (
      SELECT f.schedule_id, f.time FROM schedule_firings AS f
      WHERE f.tenant_id = ${tenantId} AND f.create_time < now() - ${olderThanMs}::float8 * interval '1 ms'
        AND f.state <> ${FIRING.queued} AND NOT ${isUnderWay(sql)}
      ORDER BY f.create_time LIMIT ${limit}
    ) AS old
    WHERE gone.schedule_id = old.schedule_id AND gone.time = old.time RETURNING 1`;
  return rows.length;
}
