import type { Sql } from '../sql.ts';

/** What an attempt takes of its agent where that is not just one slot; what is absent is as there. */
export interface ExecutionReservation {
  slots?: number;
  cpu_milli?: number;
  memory_bytes?: number;
  slurm_jobs?: number;
  gpu_uuids?: readonly string[];
}

/** A row of `executions` as callers see it. */
export interface ExecutionRow {
  id: string;
  state: number;
  attempt: number;
  failures: number;
  agent_id: string | null;
  module_id: string | null;
  module: string | null;
  version: string | null;
  task_class: string;
  labels: Record<string, string> | null;
  priority: number;
  json_text: boolean;
  output_json: string | null;
  error_code: number | null;
  error_message: string | null;
  error_details: string | null;
  exit_code: number | null;
  stdout_tail: string | null;
  stderr_tail: string | null;
  stdout_bytes: number | null;
  stderr_bytes: number | null;
  stdout_truncated: boolean | null;
  stderr_truncated: boolean | null;
  cpu_ms: number | null;
  max_rss_bytes: number | null;
  create_time: Date;
  queue_time: Date;
  assign_time: Date | null;
  start_time: Date | null;
  end_time: Date | null;
  prepare_ms: number | null;
  run_ms: number | null;
  cancel_reason: string | null;
  log_delete_time: Date | null;
  reservation: ExecutionReservation | null;
  request?: Uint8Array;
  input_json?: string;
}

/** All but the large ones. */
const COLUMNS = `id, state, attempt, failures, agent_id, module_id, module, version, task_class, labels, priority, json_text,
  error_code, error_message, error_details, exit_code, stdout_tail, stderr_tail, stdout_bytes, stderr_bytes,
  stdout_truncated, stderr_truncated, cpu_ms, max_rss_bytes, create_time, queue_time, assign_time, start_time, end_time,
  prepare_ms, run_ms, cancel_reason, log_delete_time, reservation`;

export async function readExecution(sql: Sql, tenantId: string, id: string): Promise<ExecutionRow | undefined> {
  const [row] = await sql<ExecutionRow[]>`
    SELECT ${sql.unsafe(COLUMNS)}, output_json, request, input_json FROM executions
    WHERE tenant_id = ${tenantId} AND id = ${id}`;
  return row;
}

/**
 * The same without what may be large, for whoever looks again and again: no input and no output, and the request only of what
 * waits, since it tells why.
 */
export async function readExecutionState(sql: Sql, tenantId: string, id: string): Promise<ExecutionRow | undefined> {
  const [row] = await sql<ExecutionRow[]>`
    SELECT ${sql.unsafe(COLUMNS)}, NULL AS output_json,
      CASE WHEN agent_id IS NULL AND end_time IS NULL THEN request END AS request
    FROM executions WHERE tenant_id = ${tenantId} AND id = ${id}`;
  return row;
}

export async function findExecutionByKey(sql: Sql, tenantId: string, key: string): Promise<string | undefined> {
  const [row] = await sql<{ id: string }[]>`
    SELECT id FROM executions WHERE tenant_id = ${tenantId} AND idempotency_key = ${key}`;
  return row?.id;
}

/** Ids by idempotency key, of those that there are. */
export async function findExecutionsByKeys(sql: Sql, tenantId: string, keys: string[]): Promise<Map<string, string>> {
  if (keys.length === 0) return new Map();
  const rows = await sql<{ id: string; idempotency_key: string }[]>`
    SELECT id, idempotency_key FROM executions WHERE tenant_id = ${tenantId} AND idempotency_key = ANY(${keys})`;
  return new Map(rows.map((row) => [row.idempotency_key, row.id]));
}

/** The output as JSON text; undefined: there is no such execution any more, or it made none. */
export async function readOutput(sql: Sql, tenantId: string, id: string): Promise<string | undefined> {
  const [row] = await sql<{ output_json: string | null }[]>`
    SELECT output_json FROM executions WHERE tenant_id = ${tenantId} AND id = ${id}`;
  return row?.output_json ?? undefined;
}

/** In bytes of JSON text by id, of those that there are and that made one. */
export async function sizesOfOutputs(sql: Sql, tenantId: string, ids: string[]): Promise<Map<string, number>> {
  if (ids.length === 0) return new Map();
  const rows = await sql<{ id: string; bytes: number }[]>`
    SELECT id, octet_length(output_json) AS bytes FROM executions
    WHERE tenant_id = ${tenantId} AND id = ANY(${ids}) AND output_json IS NOT NULL`;
  return new Map(rows.map((row) => [row.id, row.bytes]));
}

/** As JSON text by id, of those that there are and that made one. Whoever asks knows that they fit into memory. */
export async function readOutputs(sql: Sql, tenantId: string, ids: string[]): Promise<Map<string, string>> {
  if (ids.length === 0) return new Map();
  const rows = await sql<{ id: string; output_json: string }[]>`
    SELECT id, output_json FROM executions
    WHERE tenant_id = ${tenantId} AND id = ANY(${ids}) AND output_json IS NOT NULL`;
  return new Map(rows.map((row) => [row.id, row.output_json]));
}

export interface ExecutionFilter {
  tenantId: string;
  limit: number;
  /** Only ids before this one. */
  before: string | undefined;
  state: number | undefined;
  module: string | undefined;
  createTimeFrom: Date | undefined;
  createTimeTo: Date | undefined;
}

/** Newest first. Inputs, outputs and requests are left out. */
export async function listExecutions(sql: Sql, filter: ExecutionFilter): Promise<ExecutionRow[]> {
  return await sql<ExecutionRow[]>`
    SELECT ${sql.unsafe(COLUMNS)}, NULL AS output_json FROM executions
    WHERE tenant_id = ${filter.tenantId}
      ${filter.before === undefined ? sql`` : sql`AND id < ${filter.before}`}
      ${filter.state === undefined ? sql`` : sql`AND state = ${filter.state}`}
      ${filter.module === undefined ? sql`` : sql`AND module = ${filter.module}`}
      ${filter.createTimeFrom === undefined ? sql`` : sql`AND create_time >= ${filter.createTimeFrom}`}
      ${filter.createTimeTo === undefined ? sql`` : sql`AND create_time < ${filter.createTimeTo}`}
    ORDER BY id DESC LIMIT ${filter.limit}`;
}

export interface AttemptRow {
  attempt: number;
  agent_id: string | null;
  state: number;
  error_code: number | null;
  error_message: string | null;
  error_details: string | null;
  exit_code: number | null;
  assign_time: Date | null;
  start_time: Date | null;
  end_time: Date;
}

/** Attempts that were followed by another one, oldest first. */
export async function listAttempts(sql: Sql, tenantId: string, id: string): Promise<AttemptRow[]> {
  return await sql<AttemptRow[]>`
    SELECT attempt, agent_id, state, error_code, error_message, error_details, exit_code, assign_time, start_time, end_time
    FROM attempts WHERE tenant_id = ${tenantId} AND execution_id = ${id} ORDER BY attempt`;
}

/** How long the log of an attempt that is over was when it ended, and when it was deleted; null: it is there. */
export interface LogEnd {
  stdout_bytes: number | null;
  stderr_bytes: number | null;
  log_delete_time: Date | null;
}

/** @returns undefined while the attempt is not over, and when its execution is gone */
export async function readLogEnd(sql: Sql, tenantId: string, id: string, attempt: number): Promise<LogEnd | undefined> {
  // One that was put back, and ended while it waited, is told of in both.
  const [row] = await sql<LogEnd[]>`
    SELECT max(ends.stdout_bytes) AS stdout_bytes, max(ends.stderr_bytes) AS stderr_bytes, e.log_delete_time
    FROM executions AS e, LATERAL (
      SELECT e.stdout_bytes, e.stderr_bytes WHERE e.attempt = ${attempt} AND e.end_time IS NOT NULL
      UNION ALL
      SELECT a.stdout_bytes, a.stderr_bytes FROM attempts AS a
      WHERE a.tenant_id = e.tenant_id AND a.execution_id = e.id AND a.attempt = ${attempt}
    ) AS ends
    WHERE e.tenant_id = ${tenantId} AND e.id = ${id}
    GROUP BY e.log_delete_time`;
  return row;
}

/** What an agent should be running. */
export interface ActiveRow {
  id: string;
  tenant_id: string;
  state: number;
  attempt: number;
  failures: number;
  module_id: string | null;
  module: string | null;
  version: string | null;
  task_class: string;
  labels: Record<string, string> | null;
  priority: number;
  request: Uint8Array;
  input_json: string;
  json_text: boolean;
  create_time: Date;
  queue_time: Date;
  assign_time: Date | null;
  /** How long ago it was assigned. */
  assigned_ms: number;
  cancel_reason: string | null;
  reservation: ExecutionReservation | null;
}

const ACTIVE_COLUMNS = `id, tenant_id, state, attempt, failures, module_id, module, version, task_class, labels, priority, request,
  input_json, json_text, create_time, queue_time, assign_time,
  coalesce(extract(epoch FROM now() - assign_time)::float8 * 1000, 'Infinity') AS assigned_ms, cancel_reason, reservation`;

export async function listActiveOfAgent(sql: Sql, agentId: string): Promise<ActiveRow[]> {
  return await sql<ActiveRow[]>`
    SELECT ${sql.unsafe(ACTIVE_COLUMNS)} FROM executions WHERE agent_id = ${agentId} AND end_time IS NULL`;
}

/** The same of an agent that has no lease, or was deleted: nothing while it has one. */
export async function listActiveOfLostAgent(sql: Sql, agentId: string): Promise<ActiveRow[]> {
  return await sql<ActiveRow[]>`
    SELECT ${sql.unsafe(ACTIVE_COLUMNS)} FROM executions WHERE agent_id = ${agentId} AND end_time IS NULL
      AND NOT EXISTS (SELECT 1 FROM agents WHERE id = ${agentId} AND (lease_end_time IS NULL OR lease_end_time > now()))`;
}

/** Attempts of the agents that are linked to a replica which were assigned before `minAgeMs`. */
export async function listActiveOfReplica(
  sql: Sql,
  replicaId: string,
  minAgeMs: number,
): Promise<{ id: string; attempt: number; agent_id: string }[]> {
  return await sql<{ id: string; attempt: number; agent_id: string }[]>`
    SELECT e.id, e.attempt, e.agent_id FROM executions AS e JOIN agents ON agents.id = e.agent_id
    WHERE agents.replica_id = ${replicaId} AND e.agent_id IS NOT NULL AND e.end_time IS NULL
      AND e.assign_time < now() - ${minAgeMs}::float8 * interval '1 millisecond'`;
}

/** Whether an attempt is the current one of its execution, is with that agent, and has not ended. */
export async function isActiveAttempt(sql: Sql, id: string, attempt: number, agentId: string): Promise<boolean> {
  const rows = await sql`
    SELECT id FROM executions WHERE agent_id = ${agentId} AND end_time IS NULL AND id = ${id} AND attempt = ${attempt}`;
  return rows.length > 0;
}

/** Why a caller wants it to stop; undefined when nobody does. */
export async function readCancelReason(sql: Sql, tenantId: string, id: string): Promise<string | undefined> {
  const [row] = await sql<{ cancel_reason: string | null }[]>`
    SELECT cancel_reason FROM executions WHERE tenant_id = ${tenantId} AND id = ${id}`;
  return row?.cancel_reason ?? undefined;
}
