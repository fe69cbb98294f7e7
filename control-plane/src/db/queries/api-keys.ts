import type { Sql } from '../sql.ts';

export interface ApiKeyRow {
  id: string;
  tenant_id: string;
  tenant_name: string;
  role: number;
}

/** The key with this hash, unless it has expired. */
export async function findApiKey(sql: Sql, secretHash: Uint8Array): Promise<ApiKeyRow | undefined> {
  const [row] = await sql<ApiKeyRow[]>`
    SELECT k.id, k.tenant_id, t.name AS tenant_name, k.role FROM api_keys AS k JOIN tenants AS t ON t.id = k.tenant_id
    WHERE k.secret_hash = ${secretHash} AND (k.expire_time IS NULL OR k.expire_time > now())`;
  return row;
}

/** Stores a key; one that is stored already is left alone. */
export async function insertApiKey(
  sql: Sql,
  key: { id: string; tenantId: string; name: string; role: number; secretHash: Uint8Array },
): Promise<void> {
  await sql`
    INSERT INTO api_keys (id, tenant_id, name, role, secret_hash)
    VALUES (${key.id}, ${key.tenantId}, ${key.name}, ${key.role}, ${key.secretHash})
    ON CONFLICT (secret_hash) DO NOTHING`;
}

/** The id of the tenant with this name, which is made when there is none. */
export async function ensureTenant(sql: Sql, id: string, name: string): Promise<string> {
  await sql`INSERT INTO tenants (id, name) VALUES (${id}, ${name}) ON CONFLICT (name) DO NOTHING`;
  const [row] = await sql<{ id: string }[]>`SELECT id FROM tenants WHERE name = ${name}`;
  if (row === undefined) throw new Error(`the tenant ${name} was not stored`);
  return row.id;
}
