import type { Sql } from '../sql.ts';
import { lockName, markLatest, type PickLatest } from './versions.ts';

export interface WorkflowRow {
  id: string;
  tenant_id: string;
  name: string;
  version: string;
  digest: string;
  definition: Uint8Array;
  create_time: Date;
}

export interface NewWorkflow {
  id: string;
  tenantId: string;
  name: string;
  version: string;
  tags: string[];
  digest: string;
  definition: Uint8Array;
}

const columns = (sql: Sql) => sql`id, tenant_id, name, version, digest, definition, create_time`;

/** As `insertModule`. @returns the row that now stands */
export async function insertWorkflow(sql: Sql, workflow: NewWorkflow, pickLatest: PickLatest): Promise<WorkflowRow> {
  const { id, tenantId, name, version, tags, digest, definition } = workflow;
  return await sql.begin(async (transaction) => {
    await lockName(transaction, 'workflow', tenantId, name);
    const [existing] = await transaction<WorkflowRow[]>`
      SELECT id, tenant_id, name, version, digest, definition, create_time FROM workflows
      WHERE tenant_id = ${tenantId} AND name = ${name} AND version = ${version} AND delete_time IS NULL`;
    if (existing !== undefined) {
      if (existing.digest !== digest) return existing;
      await transaction`UPDATE workflows SET tags = ${tags}, definition = ${definition} WHERE id = ${existing.id}`;
      return { ...existing, definition };
    }
    const [row] = await transaction<WorkflowRow[]>`
      INSERT INTO workflows (id, tenant_id, name, version, tags, digest, definition, latest)
      VALUES (${id}, ${tenantId}, ${name}, ${version}, ${tags}, ${digest}, ${definition}, false)
      RETURNING id, tenant_id, name, version, digest, definition, create_time`;
    if (row === undefined) throw new Error('the workflow was not stored');
    await markLatest(transaction, 'workflows', tenantId, name, pickLatest);
    await transaction`INSERT INTO events (tenant_id, type, data)
      VALUES (${tenantId}, 'workflow.created', ${transaction.json({ name, version })})`;
    return row;
  });
}

/** A version, or the latest when none is named. */
export async function readWorkflow(
  sql: Sql,
  tenantId: string,
  name: string,
  version: string | undefined,
): Promise<WorkflowRow | undefined> {
  const [row] = await sql<WorkflowRow[]>`
    SELECT ${columns(sql)} FROM workflows
    WHERE tenant_id = ${tenantId} AND name = ${name} AND delete_time IS NULL
      AND ${version === undefined ? sql`latest` : sql`version = ${version}`}`;
  return row;
}

/** Those that there are, as `readWorkflow`; `asked`: the version that was named, '' for the latest. */
export async function readWorkflows(
  sql: Sql,
  tenantId: string,
  named: readonly { name: string; version: string }[],
): Promise<(WorkflowRow & { asked: string })[]> {
  if (named.length === 0) return [];
  return await sql<(WorkflowRow & { asked: string })[]>`
    SELECT found.*, named.version AS asked
    FROM unnest(${named.map(({ name }) => name)}::text[], ${named.map(({ version }) => version)}::text[])
      AS named(name, version)
    CROSS JOIN LATERAL (
      SELECT ${columns(sql)} FROM workflows
      WHERE tenant_id = ${tenantId} AND workflows.name = named.name AND delete_time IS NULL
        AND CASE WHEN named.version = '' THEN latest ELSE workflows.version = named.version END
    ) AS found`;
}

/** Versions by their ids, deleted or not, in no order. */
export async function readWorkflowsById(sql: Sql, tenantId: string, ids: readonly string[]): Promise<WorkflowRow[]> {
  return await sql<WorkflowRow[]>`
    SELECT ${columns(sql)} FROM workflows WHERE tenant_id = ${tenantId} AND id = ANY(${[...ids]}::uuid[])`;
}

export interface WorkflowFilter {
  tenantId: string;
  limit: number;
  /** Only names after this one. */
  after: string | undefined;
  tag: string | undefined;
  namePrefix: string | undefined;
}

/** Latest versions by name. */
export async function listWorkflows(sql: Sql, filter: WorkflowFilter): Promise<WorkflowRow[]> {
  return await sql<WorkflowRow[]>`
    SELECT ${columns(sql)} FROM workflows
    WHERE tenant_id = ${filter.tenantId} AND delete_time IS NULL AND latest
      ${filter.after === undefined ? sql`` : sql`AND name > ${filter.after}`}
      ${filter.tag === undefined ? sql`` : sql`AND tags @> ARRAY[${filter.tag}]`}
      ${filter.namePrefix === undefined ? sql`` : sql`AND starts_with(name, ${filter.namePrefix})`}
    ORDER BY name LIMIT ${filter.limit}`;
}
