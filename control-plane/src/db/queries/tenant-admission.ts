import type { Sql } from '../sql.ts';

/** What of a tenant's own settings and of its queue decides whether another execution is taken. */
export interface TenantAdmission {
  /** Null: as the control plane's settings say. */
  max_queued: number | null;
  max_per_second: number | null;
  max_active: number | null;
  weight: number;
  /** Executions that wait, counted up to `countTo`. */
  queued: number;
}

export async function readTenantAdmission(
  sql: Sql,
  tenantId: string,
  countTo: number,
): Promise<TenantAdmission | undefined> {
  const [row] = await sql<TenantAdmission[]>`
    SELECT max_queued, max_per_second, max_active, weight, (
      SELECT count(*)::int FROM (
        SELECT FROM execution_queue WHERE tenant_id = tenants.id
        LIMIT greatest(${countTo}::int, coalesce(max_queued, 0)) + 1
      ) AS waiting
    ) AS queued
    FROM tenants WHERE id = ${tenantId}`;
  return row;
}
