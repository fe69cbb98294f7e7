import type { Sql } from '../sql.ts';
import type { EventPosition } from './events.ts';

/** What of the row of an execution or a run, and of a few index entries, is not counted by its columns. */
const ROW_BYTES = 512;
/** The same of a node of a run, and of a line of its log. */
const SMALL_ROW_BYTES = 128;

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

/** What a row of `workflow_runs`, named r, takes of its tenant's space, with its nodes and its log. */
function bytesOfRun(sql: Sql) {
  return sql`(${ROW_BYTES}::bigint + octet_length(r.input_json) + coalesce(octet_length(r.output_json), 0)
    + coalesce(pg_column_size(r.root), 0)
    + coalesce((SELECT sum(${SMALL_ROW_BYTES} + pg_column_size(n.instance) + coalesce(octet_length(n.input_json), 0)
      + coalesce(octet_length(n.output_json), 0))::bigint FROM workflow_nodes AS n WHERE n.run_id = r.id), 0)
    + coalesce((SELECT sum(${SMALL_ROW_BYTES} + octet_length(l.message))::bigint FROM workflow_log AS l
      WHERE l.run_id = r.id), 0))`;
}

/** The run of a workflow that an execution, named e, is of, by its key; null: of none. See workflow/execution-key.ts. */
function runOf(sql: Sql) {
  return sql`CASE WHEN e.idempotency_key ~ '^workflow/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/'
    THEN substr(e.idempotency_key, 10, 36)::uuid END`;
}

/**
 * Ids of executions and runs that were created so long ago are below this one: they begin with the time in milliseconds (UUIDv7). It
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
 * Adds what the executions and runs take whose end is told by the next events to their tenants' space. Counted once: the
 * position moves in the same statement, and a run that ends again is counted as far as it has grown.
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
      SELECT xid, id, tenant_id, execution_id, type, data FROM events
      WHERE (xid, id) > (${after.xid}::text::xid8, ${after.id}) AND xid < pg_snapshot_xmin(pg_current_snapshot())
      ORDER BY xid, id LIMIT ${limit}
    ), last AS (
      SELECT xid, id FROM batch ORDER BY xid DESC, id DESC LIMIT 1
    ), runs AS MATERIALIZED (
      SELECT r.tenant_id, r.id, ${bytesOfRun(sql)} AS bytes, r.stored_bytes FROM workflow_runs AS r
      WHERE (r.tenant_id, r.id) IN (SELECT tenant_id, (data->>'id')::uuid FROM batch WHERE type = 'workflow.finished')
    ), noted AS (
      UPDATE workflow_runs SET stored_bytes = runs.bytes FROM runs
      WHERE workflow_runs.tenant_id = runs.tenant_id AND workflow_runs.id = runs.id
    ), ended AS (
      SELECT tenant_id, sum(bytes)::bigint AS bytes FROM (
        SELECT e.tenant_id, ${bytesOf(sql)} AS bytes
        FROM batch JOIN executions AS e ON e.tenant_id = batch.tenant_id AND e.id = batch.execution_id
        WHERE batch.type = 'execution.finished'
        UNION ALL
        SELECT tenant_id, bytes - stored_bytes FROM runs
      ) AS of GROUP BY tenant_id
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

/** What that is over is deleted, oldest first. */
export interface Expired {
  tenantId: string;
  /** Only what ended so long ago; 0: whenever. */
  olderThanMs: number;
  /** Only ids behind this one: what stands before was looked at. */
  after: string;
  /** Executions and runs looked at, at most; fewer are deleted when their logs are large. */
  limit: number;
  /** Stop when so many bytes of log are deleted. */
  maxLogBytes: number;
  /** Stop when so much of the tenant's space is free. */
  maxBytes?: number;
}

export interface Deleted {
  executions: number;
  runs: number;
  bytes: number;
  /** Where to go on; null: nothing is left to delete. */
  last: string | null;
}

/**
 * Deletes executions with all that belongs to them, and runs of workflows, and gives their space back. The executions of a run
 * are kept as long as it is, and are among what is left when it is deleted; its nodes and its log are left to `clearRemains`.
 */
export async function deleteExpired(sql: Sql, expired: Expired): Promise<Deleted> {
  const { tenantId, olderThanMs, after, limit, maxLogBytes, maxBytes } = expired;
  // What is free with the run a moment later, so that nothing younger goes in place of it.
  const ofItsExecutions = sql`coalesce((SELECT sum(${bytesOf(sql)})::bigint FROM workflow_nodes AS node JOIN executions AS e
    ON e.tenant_id = node.tenant_id AND e.id = node.execution_id WHERE node.run_id = r.id), 0)`;
  const [row] = await sql<Deleted[]>`
    WITH found AS (
      (SELECT e.tenant_id, e.id, false AS is_run, ${bytesOf(sql)} AS bytes, ${logBytesOf(sql)} AS log_bytes, 0 AS follows
      FROM executions AS e
      WHERE e.tenant_id = ${tenantId} AND e.id > ${after} AND e.id <= ${idBefore(sql, olderThanMs)}
        AND e.end_time <= now() - ${olderThanMs}::float8 * interval '1 ms'
        AND NOT EXISTS (SELECT FROM workflow_runs AS r WHERE r.tenant_id = e.tenant_id AND r.id = ${runOf(sql)})
      ORDER BY e.id LIMIT ${limit})
      UNION ALL
      (SELECT r.tenant_id, r.id, true, r.stored_bytes, 0, ${maxBytes === undefined ? 0 : ofItsExecutions}
      FROM workflow_runs AS r
      WHERE r.tenant_id = ${tenantId} AND r.id > ${after} AND r.id <= ${idBefore(sql, olderThanMs)}
        AND r.end_time <= now() - ${olderThanMs}::float8 * interval '1 ms'
        -- Somebody has just asked for it to be started again.
        AND NOT EXISTS (SELECT FROM workflow_inbox AS word WHERE word.run_id = r.id)
      ORDER BY r.id LIMIT ${limit})
    ), summed AS (
      SELECT *, sum(log_bytes) OVER (ORDER BY id) - log_bytes AS log_before,
        sum(bytes + follows) OVER (ORDER BY id) - bytes - follows AS before
      FROM (SELECT * FROM found ORDER BY id LIMIT ${limit}) AS oldest
    ), chosen AS MATERIALIZED (
      SELECT tenant_id, id, is_run, bytes FROM summed WHERE log_before < ${maxLogBytes} AND before < ${maxBytes ?? Number.MAX_SAFE_INTEGER}
    ), logs AS (
      DELETE FROM log_chunks USING chosen WHERE log_chunks.execution_id = chosen.id
    ), tries AS (
      DELETE FROM attempts USING chosen
      WHERE attempts.tenant_id = chosen.tenant_id AND attempts.execution_id = chosen.id
    ), gone AS (
      DELETE FROM executions USING chosen WHERE executions.tenant_id = chosen.tenant_id AND executions.id = chosen.id
    ), runs AS (
      DELETE FROM workflow_runs USING chosen
      WHERE chosen.is_run AND workflow_runs.tenant_id = chosen.tenant_id AND workflow_runs.id = chosen.id
      RETURNING workflow_runs.tenant_id, workflow_runs.id
    ), remains AS (
      INSERT INTO workflow_remains (tenant_id, run_id) SELECT tenant_id, id FROM runs
    ), counted AS (
      UPDATE tenants SET stored_bytes = greatest(0, stored_bytes - (SELECT coalesce(sum(bytes), 0) FROM chosen))
      WHERE id = ${tenantId} AND EXISTS (SELECT FROM chosen)
    )
    SELECT count(*) FILTER (WHERE NOT is_run)::int AS executions, count(*) FILTER (WHERE is_run)::int AS runs,
      coalesce(sum(bytes), 0)::bigint AS bytes,
      -- Executions of a run that is gone stand behind it, and were passed over.
      coalesce((SELECT id FROM chosen WHERE is_run ORDER BY id LIMIT 1), (SELECT id FROM chosen ORDER BY id DESC LIMIT 1))
        AS last
    FROM chosen`;
  return row ?? { executions: 0, runs: 0, bytes: 0, last: null };
}

/** Deletes nodes and lines of the log of runs that are gone, so many of each at most. @returns whether some may be left */
export async function clearRemains(sql: Sql, limit: number): Promise<boolean> {
  const [row] = await sql<{ runs: number }[]>`
    WITH oldest AS MATERIALIZED (
      SELECT run_id FROM workflow_remains ORDER BY run_id LIMIT ${limit}
    ), nodes AS (
      DELETE FROM workflow_nodes WHERE (run_id, path) IN (
        SELECT n.run_id, n.path FROM oldest JOIN workflow_nodes AS n ON n.run_id = oldest.run_id LIMIT ${limit})
      RETURNING 1
    ), log AS (
      DELETE FROM workflow_log WHERE (run_id, sequence) IN (
        SELECT l.run_id, l.sequence FROM oldest JOIN workflow_log AS l ON l.run_id = oldest.run_id LIMIT ${limit})
      RETURNING 1
    ), words AS (
      DELETE FROM workflow_inbox USING oldest WHERE workflow_inbox.run_id = oldest.run_id
    ), cleared AS (
      DELETE FROM workflow_remains USING oldest WHERE workflow_remains.run_id = oldest.run_id
        AND (SELECT count(*) FROM nodes) < ${limit} AND (SELECT count(*) FROM log) < ${limit}
    )
    SELECT count(*)::int AS runs FROM oldest`;
  return (row?.runs ?? 0) > 0;
}

/** Deletes the logs of executions that are over, which stay. Of those that have a log; see `deleteExpired`. */
export async function deleteLogs(
  sql: Sql,
  { tenantId, olderThanMs, after, limit, maxLogBytes }: Omit<Expired, 'maxBytes'>,
): Promise<Omit<Deleted, 'runs'>> {
  const [row] = await sql<Omit<Deleted, 'runs'>[]>`
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
