import type { Sql } from '../sql.ts';
import type { EventPosition } from './events.ts';

/** What of an execution's row, and of a few index entries, is not counted by its columns. */
const ROW_BYTES = 512;

export interface TenantRetention {
  id: string;
  /** Null: as the control plane's settings say. */
  execution_retention_days: number | null;
  log_retention_days: number | null;
  max_stored_bytes: number | null;
  stored_bytes: number;
}

export async function listTenantRetention(sql: Sql): Promise<TenantRetention[]> {
  return await sql<TenantRetention[]>`
    SELECT id, execution_retention_days, log_retention_days, max_stored_bytes, stored_bytes FROM tenants ORDER BY id`;
}

/** What a row of `executions`, named e, takes of its tenant's space: with its log as long as that is there. */
function bytesOf(sql: Sql) {
  return sql`(${ROW_BYTES}::bigint + octet_length(e.request) + octet_length(e.input_json)
    + coalesce(octet_length(e.output_json), 0) + CASE WHEN e.log_delete_time IS NULL THEN ${logBytesOf(sql)} ELSE 0 END)`;
}

/**
 * Ids of executions that were created so long ago are below this one: they begin with the time in milliseconds (UUIDv7). It
 * spares looking at those that cannot have ended so long ago.
 */
function idBefore(sql: Sql, olderThanMs: number) {
  return sql`(lpad(to_hex((extract(epoch FROM now()) * 1000 - ${olderThanMs}::float8)::bigint), 12, '0')
    || repeat('f', 20))::uuid`;
}

function logBytesOf(sql: Sql) {
  return sql`(coalesce(e.stdout_bytes, 0) + coalesce(e.stderr_bytes, 0) + coalesce((
    SELECT sum(coalesce(a.stdout_bytes, 0) + coalesce(a.stderr_bytes, 0))::bigint FROM attempts AS a
    WHERE a.tenant_id = e.tenant_id AND a.execution_id = e.id), 0))`;
}

/**
 * Adds what the executions take whose end is told by the next events to their tenants' space. Counted once: the position
 * moves in the same statement.
 * @returns the new position, and how many events were looked at
 */
export async function countStoredBytes(
  sql: Sql,
  reader: string,
  after: EventPosition,
  limit: number,
): Promise<{ position: EventPosition; events: number }> {
  const [row] = await sql<{ xid: string | null; id: number | null; events: number }[]>`
    WITH batch AS MATERIALIZED (
      SELECT xid, id, tenant_id, execution_id, type FROM events
      WHERE (xid, id) > (${after.xid}::text::xid8, ${after.id}) AND xid < pg_snapshot_xmin(pg_current_snapshot())
      ORDER BY xid, id LIMIT ${limit}
    ), last AS (
      SELECT xid, id FROM batch ORDER BY xid DESC, id DESC LIMIT 1
    ), ended AS (
      SELECT e.tenant_id, sum(${bytesOf(sql)})::bigint AS bytes
      FROM batch JOIN executions AS e ON e.tenant_id = batch.tenant_id AND e.id = batch.execution_id
      WHERE batch.type = 'execution.finished' GROUP BY e.tenant_id
    ), counted AS (
      UPDATE tenants SET stored_bytes = stored_bytes + ended.bytes FROM ended WHERE tenants.id = ended.tenant_id
    ), moved AS (
      INSERT INTO event_readers (name, xid, id) SELECT ${reader}, xid, id FROM last
      ON CONFLICT (name) DO UPDATE SET xid = excluded.xid, id = excluded.id, update_time = now()
    )
    SELECT (SELECT xid::text FROM last) AS xid, (SELECT id FROM last) AS id, (SELECT count(*)::int FROM batch) AS events`;
  if (row === undefined || row.xid === null || row.id === null) return { position: after, events: 0 };
  return { position: { xid: row.xid, id: row.id }, events: row.events };
}

/** Which executions that are over are deleted, oldest first. */
export interface ExpiredExecutions {
  tenantId: string;
  /** Only those that ended so long ago; 0: whenever. */
  olderThanMs: number;
  /** Only ids behind this one: what stands before was looked at. */
  after: string;
  /** Executions looked at, at most; fewer are deleted when their logs are large. */
  limit: number;
  /** Stop when so many bytes of log are deleted. */
  maxLogBytes: number;
  /** Stop when so much of the tenant's space is free. */
  maxBytes?: number;
}

export interface DeletedExecutions {
  executions: number;
  bytes: number;
  /** The last id that was deleted; null: nothing is left to delete. */
  last: string | null;
}

/** Deletes executions with all that belongs to them, and gives their space back. */
export async function deleteExecutions(sql: Sql, expired: ExpiredExecutions): Promise<DeletedExecutions> {
  const { tenantId, olderThanMs, after, limit, maxLogBytes, maxBytes = Number.MAX_SAFE_INTEGER } = expired;
  const [row] = await sql<DeletedExecutions[]>`
    WITH found AS (
      SELECT e.tenant_id, e.id, ${bytesOf(sql)} AS bytes, ${logBytesOf(sql)} AS log_bytes FROM executions AS e
      WHERE e.tenant_id = ${tenantId} AND e.id > ${after} AND e.id <= ${idBefore(sql, olderThanMs)}
        AND e.end_time <= now() - ${olderThanMs}::float8 * interval '1 ms'
      ORDER BY e.id LIMIT ${limit}
    ), summed AS (
      SELECT *, sum(log_bytes) OVER (ORDER BY id) - log_bytes AS log_before, sum(bytes) OVER (ORDER BY id) - bytes AS before
      FROM found
    ), chosen AS MATERIALIZED (
      SELECT tenant_id, id, bytes FROM summed WHERE log_before < ${maxLogBytes} AND before < ${maxBytes}
    ), logs AS (
      DELETE FROM log_chunks USING chosen WHERE log_chunks.execution_id = chosen.id
    ), tries AS (
      DELETE FROM attempts USING chosen
      WHERE attempts.tenant_id = chosen.tenant_id AND attempts.execution_id = chosen.id
    ), gone AS (
      DELETE FROM executions USING chosen WHERE executions.tenant_id = chosen.tenant_id AND executions.id = chosen.id
    ), counted AS (
      UPDATE tenants SET stored_bytes = greatest(0, stored_bytes - (SELECT coalesce(sum(bytes), 0) FROM chosen))
      WHERE id = ${tenantId} AND EXISTS (SELECT FROM chosen)
    )
    SELECT count(*)::int AS executions, coalesce(sum(bytes), 0)::bigint AS bytes,
      (SELECT id FROM chosen ORDER BY id DESC LIMIT 1) AS last FROM chosen`;
  return row ?? { executions: 0, bytes: 0, last: null };
}

/** Deletes the logs of executions that are over, which stay. Of those that have a log; see `deleteExecutions`. */
export async function deleteLogs(
  sql: Sql,
  { tenantId, olderThanMs, after, limit, maxLogBytes }: Omit<ExpiredExecutions, 'maxBytes'>,
): Promise<DeletedExecutions> {
  const [row] = await sql<DeletedExecutions[]>`
    WITH found AS (
      SELECT e.tenant_id, e.id, ${logBytesOf(sql)} AS bytes FROM executions AS e
      WHERE e.tenant_id = ${tenantId} AND e.id > ${after} AND e.id <= ${idBefore(sql, olderThanMs)}
        AND e.log_delete_time IS NULL AND e.end_time <= now() - ${olderThanMs}::float8 * interval '1 ms'
      ORDER BY e.id LIMIT ${limit}
    ), summed AS (
      SELECT *, sum(bytes) OVER (ORDER BY id) - bytes AS before FROM found
    ), chosen AS MATERIALIZED (
      SELECT tenant_id, id, bytes FROM summed WHERE before < ${maxLogBytes}
    ), logs AS (
      DELETE FROM log_chunks USING chosen WHERE log_chunks.execution_id = chosen.id
    ), marked AS (
      UPDATE executions SET log_delete_time = now(), stdout_tail = NULL, stderr_tail = NULL FROM chosen
      WHERE executions.tenant_id = chosen.tenant_id AND executions.id = chosen.id
    ), counted AS (
      UPDATE tenants SET stored_bytes = greatest(0, stored_bytes - (SELECT coalesce(sum(bytes), 0) FROM chosen))
      WHERE id = ${tenantId} AND EXISTS (SELECT FROM chosen)
    )
    SELECT count(*)::int AS executions, coalesce(sum(bytes), 0)::bigint AS bytes,
      (SELECT id FROM chosen ORDER BY id DESC LIMIT 1) AS last FROM chosen`;
  return row ?? { executions: 0, bytes: 0, last: null };
}

/** Deletes the oldest events, as far as every reader has come and no further than their age allows. @returns how many */
export async function deleteEvents(sql: Sql, olderThanMs: number, limit: number): Promise<number> {
  const rows = await sql`
    DELETE FROM events USING (
      SELECT xid, id FROM events
      WHERE (xid, id) <= coalesce((SELECT (r.xid, r.id) FROM event_readers AS r ORDER BY r.xid, r.id LIMIT 1),
        ('18446744073709551615'::xid8, 0::bigint))
      ORDER BY xid, id LIMIT ${limit}
    ) AS oldest
    WHERE events.xid = oldest.xid AND events.id = oldest.id
      AND events.time < now() - ${olderThanMs}::float8 * interval '1 ms'
    RETURNING events.id`;
  return rows.length;
}

/** Forgets readers that have not come for so long: nothing is kept for them any more. */
export async function deleteReaders(sql: Sql, silentForMs: number): Promise<string[]> {
  const rows = await sql<{ name: string }[]>`
    DELETE FROM event_readers WHERE update_time < now() - ${silentForMs}::float8 * interval '1 ms' RETURNING name`;
  return rows.map((row) => row.name);
}
