import type { LabelSelector } from '@harrier/shared';
import { WorkflowRun_State as State } from '@harrier/shared/gen/workflow';
import type { Sql } from '../sql.ts';
import { labelCondition } from './label-condition.ts';

export interface WorkflowRunRow {
  id: string;
  tenant_id: string;
  workflow_id: string;
  workflow: string;
  version: string;
  pinned: Record<string, string>;
  state: number;
  input_json: string;
  output_json: string | null;
  root: unknown;
  next_turn: number;
  revision: number;
  log_sequence: string;
  labels: Record<string, string> | null;
  replica_id: string | null;
  create_time: Date;
  start_time: Date | null;
  end_time: Date | null;
}

export interface WorkflowNodeRow {
  path: string;
  instance: unknown;
  input_json: string | null;
  output_json: string | null;
  execution_id: string | null;
  revision: number;
}

export interface NewRun {
  id: string;
  tenantId: string;
  workflowId: string;
  workflow: string;
  version: string;
  pinned: Record<string, string>;
  state: number;
  inputJson: string;
  labels: Record<string, string> | undefined;
  idempotencyKey: string | undefined;
  replicaId: string;
}

/** All but the large ones. */
const SMALL_COLUMNS = `id, tenant_id, workflow_id, workflow, version, pinned, state, next_turn, revision, log_sequence, labels,
  replica_id, create_time, start_time, end_time`;

const columns = (sql: Sql) => sql`${sql.unsafe(SMALL_COLUMNS)}, input_json, output_json, root`;

/** @returns the row that now stands for the key, and whether this call made it */
export async function insertWorkflowRun(sql: Sql, run: NewRun): Promise<{ row: WorkflowRunRow; made: boolean }> {
  const [row] = await sql<WorkflowRunRow[]>`
    WITH run AS (
      INSERT INTO workflow_runs (id, tenant_id, workflow_id, workflow, version, pinned, state, input_json, labels,
        idempotency_key, replica_id)
      VALUES (${run.id}, ${run.tenantId}, ${run.workflowId}, ${run.workflow}, ${run.version}, ${sql.json(run.pinned)},
        ${run.state}, ${run.inputJson}, ${run.labels === undefined ? null : sql.json(run.labels)},
        ${run.idempotencyKey ?? null}, ${run.replicaId})
      ON CONFLICT DO NOTHING RETURNING *
    ), told AS (
      INSERT INTO events (tenant_id, type, data)
      SELECT tenant_id, 'workflow.started', jsonb_build_object('id', id, 'workflow', workflow, 'version', version) FROM run
    )
    SELECT ${columns(sql)} FROM run`;
  if (row !== undefined) return { row, made: true };
  const [before] = await sql<WorkflowRunRow[]>`
    SELECT ${columns(sql)} FROM workflow_runs
    WHERE tenant_id = ${run.tenantId} AND idempotency_key = ${run.idempotencyKey ?? null}`;
  if (before === undefined) throw new Error('a run was not stored');
  return { row: before, made: false };
}

export async function readWorkflowRun(sql: Sql, tenantId: string, id: string): Promise<WorkflowRunRow | undefined> {
  const [row] = await sql<WorkflowRunRow[]>`
    SELECT ${columns(sql)} FROM workflow_runs WHERE tenant_id = ${tenantId} AND id = ${id}`;
  return row;
}

/** Those of some runs that there are. */
export async function readWorkflowRuns(
  sql: Sql,
  runs: readonly { id: string; tenant_id: string }[],
): Promise<WorkflowRunRow[]> {
  const [tenantIds, ids] = [runs.map((run) => run.tenant_id), runs.map((run) => run.id)];
  return await sql<WorkflowRunRow[]>`
    SELECT ${columns(sql)} FROM workflow_runs
    WHERE (tenant_id, id) IN (SELECT * FROM unnest(${tenantIds}::uuid[], ${ids}::uuid[]))`;
}

export interface WorkflowRunFilter {
  tenantId: string;
  limit: number;
  /** Only ids before this one. */
  before: string | undefined;
  workflow: string | undefined;
  state: State | undefined;
  labels: LabelSelector;
  createTimeFrom: Date | undefined;
  createTimeTo: Date | undefined;
}

/** Newest first. Inputs, outputs and variables are left out. */
export async function listWorkflowRuns(sql: Sql, filter: WorkflowRunFilter): Promise<WorkflowRunRow[]> {
  const { tenantId, limit, before, workflow, state, labels, createTimeFrom, createTimeTo } = filter;
  // Said of its end, too, so that the index of those that have ended, or have not, is good for it.
  const hasEnded = state !== State.PENDING && state !== State.RUNNING;
  const inState = sql`AND state = ${state ?? null} AND ${hasEnded ? sql`end_time IS NOT NULL` : sql`end_time IS NULL`}`;
  return await sql<WorkflowRunRow[]>`
    SELECT ${sql.unsafe(SMALL_COLUMNS)}, '' AS input_json, NULL AS output_json, root - 'variables' AS root FROM workflow_runs
    WHERE tenant_id = ${tenantId}
      ${before === undefined ? sql`` : sql`AND id < ${before}`}
      ${workflow === undefined ? sql`` : sql`AND workflow = ${workflow}`}
      ${state === undefined ? sql`` : inState}
      ${labelCondition(sql, labels)}
      ${createTimeFrom === undefined ? sql`` : sql`AND create_time >= ${createTimeFrom}`}
      ${createTimeTo === undefined ? sql`` : sql`AND create_time < ${createTimeTo}`}
    ORDER BY id DESC LIMIT ${limit}`;
}

/** Nodes of runs that were reached. */
export async function listNodesOfRuns(
  sql: Sql,
  runs: readonly { id: string; tenant_id: string }[],
): Promise<(WorkflowNodeRow & { run_id: string })[]> {
  const [tenantIds, ids] = [runs.map((run) => run.tenant_id), runs.map((run) => run.id)];
  return await sql<(WorkflowNodeRow & { run_id: string })[]>`
    SELECT run_id, path, instance, input_json, output_json, execution_id, revision FROM workflow_nodes
    WHERE (tenant_id, run_id) IN (SELECT * FROM unnest(${tenantIds}::uuid[], ${ids}::uuid[]))`;
}

/** A node without what it was given, and what it has made. */
export interface ListedNodeRow extends WorkflowNodeRow {
  input_json: null;
  output_json: null;
  /** Of what it has made and keeps itself. */
  output_bytes: number | null;
}

/** Nodes of a run that changed after a step; 0: all that were reached. */
export async function listWorkflowNodes(
  sql: Sql,
  tenantId: string,
  runId: string,
  afterRevision = 0,
): Promise<ListedNodeRow[]> {
  return await sql<ListedNodeRow[]>`
    SELECT path, instance, NULL AS input_json, NULL AS output_json, octet_length(output_json) AS output_bytes, execution_id,
      revision FROM workflow_nodes
    WHERE tenant_id = ${tenantId} AND run_id = ${runId} AND revision > ${afterRevision}`;
}

/** What nodes of a run have made and keep themselves, as JSON text, by path. */
export async function readNodeOutputs(
  sql: Sql,
  tenantId: string,
  runId: string,
  paths: string[],
): Promise<Map<string, string>> {
  if (paths.length === 0) return new Map();
  const rows = await sql<{ path: string; output_json: string }[]>`
    SELECT path, output_json FROM workflow_nodes
    WHERE tenant_id = ${tenantId} AND run_id = ${runId} AND path = ANY(${paths}) AND output_json IS NOT NULL`;
  return new Map(rows.map((row) => [row.path, row.output_json]));
}

export interface WorkflowLogRow {
  sequence: string;
  time: Date;
  level: number;
  path: string;
  message: string;
}

export async function listWorkflowLog(
  sql: Sql,
  tenantId: string,
  runId: string,
  { after, minLevel, limit }: { after: number; minLevel: number; limit: number },
): Promise<WorkflowLogRow[]> {
  return await sql<WorkflowLogRow[]>`
    SELECT sequence, time, level, path, message FROM workflow_log
    WHERE tenant_id = ${tenantId} AND run_id = ${runId} AND sequence > ${after} AND level >= ${minLevel}
    ORDER BY sequence LIMIT ${limit}`;
}
