import type { Sql } from '../sql.ts';

export type Transaction = Parameters<Parameters<Sql['begin']>[1]>[0];

/** Tables of versions: of a name one version that is not deleted is the latest. */
export type VersionTable = 'modules' | 'workflows';

/** How locks and events name what a table holds. */
const KINDS: Readonly<Record<VersionTable, string>> = { modules: 'module', workflows: 'workflow' };

/** The order of versions, for the greatest of some. */
export type PickLatest = (versions: string[]) => string | undefined;

/** Writers of one name take turns, so that `latest` is right. */
export async function lockName(sql: Transaction, kind: string, tenantId: string, name: string): Promise<void> {
  await sql`SELECT pg_advisory_xact_lock(hashtextextended(${`${kind} ${tenantId} ${name}`}, 0))`;
}

export async function markLatest(
  sql: Transaction,
  table: VersionTable,
  tenantId: string,
  name: string,
  pickLatest: PickLatest,
): Promise<void> {
  const rows = await sql<{ version: string }[]>`
    SELECT version FROM ${sql(table)} WHERE tenant_id = ${tenantId} AND name = ${name} AND delete_time IS NULL`;
  const latest = pickLatest(rows.map((row) => row.version));
  await sql`UPDATE ${sql(table)} SET latest = false
    WHERE tenant_id = ${tenantId} AND name = ${name} AND delete_time IS NULL AND latest`;
  if (latest === undefined) return;
  await sql`UPDATE ${sql(table)} SET latest = true
    WHERE tenant_id = ${tenantId} AND name = ${name} AND delete_time IS NULL AND version = ${latest}`;
}

/** Deletes one version, or all when none is named, and tells it as an event. @returns how many */
export async function deleteVersions(
  sql: Sql,
  table: VersionTable,
  { tenantId, name, version }: { tenantId: string; name: string; version: string | undefined },
  pickLatest: PickLatest,
): Promise<number> {
  const kind = KINDS[table];
  return await sql.begin(async (transaction) => {
    await lockName(transaction, kind, tenantId, name);
    const rows = await transaction`
      WITH deleted AS (
        UPDATE ${transaction(table)} SET delete_time = now(), latest = false
        WHERE tenant_id = ${tenantId} AND name = ${name} AND delete_time IS NULL
          ${version === undefined ? transaction`` : transaction`AND version = ${version}`}
        RETURNING tenant_id, name, version
      )
      INSERT INTO events (tenant_id, type, data)
      SELECT tenant_id, ${`${kind}.deleted`}, jsonb_build_object('name', name, 'version', version) FROM deleted
      RETURNING id`;
    await markLatest(transaction, table, tenantId, name, pickLatest);
    return rows.length;
  });
}
