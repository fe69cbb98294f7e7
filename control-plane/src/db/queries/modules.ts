import type { Sql } from '../sql.ts';
import { lockName, markLatest, type PickLatest, type Transaction } from './versions.ts';

export interface ModuleRow {
  id: string;
  tenant_id: string;
  name: string;
  version: string;
  digest: string;
  source: number;
  definition: Uint8Array;
  /** Platforms and locks, as they were found; null: none. */
  locks: [platform: string, lock: string][] | null;
  create_time: Date;
}

/** The columns of a `ModuleRow`. */
const columns = (sql: Sql | Transaction) => sql`
  id, tenant_id, name, version, digest, source, definition, create_time,
  (SELECT json_agg(json_build_array(platform, lock) ORDER BY l.create_time, platform)
   FROM module_locks AS l WHERE l.module_id = modules.id) AS locks`;

export interface NewModule {
  id: string;
  tenantId: string;
  name: string;
  version: string;
  environment: string;
  tags: string[];
  digest: string;
  source: number;
  definition: Uint8Array;
}

/**
 * Registers a version. One that is there with the same digest takes the tags and the definition of this one, which can then
 * differ only in what the digest leaves out.
 * @returns the row that now stands, and whether this call changed anything
 */
export async function insertModule(
  sql: Sql,
  module: NewModule,
  pickLatest: PickLatest,
): Promise<{ row: ModuleRow; changed: boolean }> {
  return await sql.begin(async (transaction) => {
    await lockName(transaction, 'module', module.tenantId, module.name);
    const [existing] = await transaction<ModuleRow[]>`
      SELECT ${columns(transaction)} FROM modules
      WHERE tenant_id = ${module.tenantId} AND name = ${module.name} AND version = ${module.version}
        AND delete_time IS NULL`;
    if (existing !== undefined) {
      const differs = !Buffer.from(existing.definition).equals(module.definition);
      if (existing.digest !== module.digest || !differs) return { row: existing, changed: false };
      await transaction`
        UPDATE modules SET tags = ${module.tags}, definition = ${module.definition} WHERE id = ${existing.id}`;
      return { row: { ...existing, definition: module.definition }, changed: true };
    }
    const [row] = await transaction<ModuleRow[]>`
      INSERT INTO modules (id, tenant_id, name, version, environment, tags, digest, source, definition, latest)
      VALUES (${module.id}, ${module.tenantId}, ${module.name}, ${module.version}, ${module.environment}, ${module.tags},
        ${module.digest}, ${module.source}, ${module.definition}, false)
      RETURNING ${columns(transaction)}`;
    if (row === undefined) throw new Error('the module was not stored');
    await markLatest(transaction, 'modules', module.tenantId, module.name, pickLatest);
    const { name, version } = module;
    await transaction`INSERT INTO events (tenant_id, type, data)
      VALUES (${module.tenantId}, 'module.created', ${transaction.json({ name, version })})`;
    return { row, changed: true };
  });
}

/** A version, or the latest when none is named. */
export async function readModule(
  sql: Sql,
  tenantId: string,
  name: string,
  version: string | undefined,
): Promise<ModuleRow | undefined> {
  const [row] = await sql<ModuleRow[]>`
    SELECT ${columns(sql)} FROM modules
    WHERE tenant_id = ${tenantId} AND name = ${name} AND delete_time IS NULL
      AND ${version === undefined ? sql`latest` : sql`version = ${version}`}`;
  return row;
}

/** A version by its id, deleted or not. */
export async function readModuleById(sql: Sql, tenantId: string, id: string): Promise<ModuleRow | undefined> {
  const [row] = await sql<ModuleRow[]>`
    SELECT ${columns(sql)} FROM modules
    WHERE tenant_id = ${tenantId} AND id = ${id}`;
  return row;
}

/** Keeps the lock that was found first for a platform. @returns what stands now; undefined when there is no such version. */
export async function decideModuleLock(
  sql: Sql,
  { tenantId, moduleId, platform, lock }: { tenantId: string; moduleId: string; platform: string; lock: string },
): Promise<string | undefined> {
  const [row] = await sql<{ lock: string }[]>`
    INSERT INTO module_locks AS l (tenant_id, module_id, platform, lock)
    SELECT tenant_id, id, ${platform}, ${lock} FROM modules WHERE tenant_id = ${tenantId} AND id = ${moduleId}
    ON CONFLICT (module_id, platform) DO UPDATE SET lock = l.lock
    RETURNING l.lock`;
  return row?.lock;
}

export interface ModuleFilter {
  tenantId: string;
  limit: number;
  /** Only names after this one. */
  after: string | undefined;
  tag: string | undefined;
  environment: string | undefined;
  namePrefix: string | undefined;
}

/** Latest versions by name. */
export async function listModules(sql: Sql, filter: ModuleFilter): Promise<ModuleRow[]> {
  return await sql<ModuleRow[]>`
    SELECT ${columns(sql)} FROM modules
    WHERE tenant_id = ${filter.tenantId} AND delete_time IS NULL AND latest
      ${filter.after === undefined ? sql`` : sql`AND name > ${filter.after}`}
      ${filter.tag === undefined ? sql`` : sql`AND tags @> ARRAY[${filter.tag}]`}
      ${filter.environment === undefined ? sql`` : sql`AND environment = ${filter.environment}`}
      ${filter.namePrefix === undefined ? sql`` : sql`AND starts_with(name, ${filter.namePrefix})`}
    ORDER BY name LIMIT ${filter.limit}`;
}

export async function listModuleVersions(sql: Sql, tenantId: string, name: string): Promise<ModuleRow[]> {
  return await sql<ModuleRow[]>`
    SELECT ${columns(sql)} FROM modules
    WHERE tenant_id = ${tenantId} AND name = ${name} AND delete_time IS NULL`;
}
