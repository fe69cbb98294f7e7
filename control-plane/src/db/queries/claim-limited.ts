import { ADVISORY_LOCKS } from '../advisory-locks.ts';
import type { AnySql, Sql } from '../sql.ts';
import { type Assigned, assignClaims, type Claim, stillWaiting } from './claim-executions.ts';

/** A claim that counts against limits; at least one of them is given. */
export interface LimitedClaim extends Claim {
  tenantId: string;
  /** Executions of the tenant with the same key count together. */
  key: string | undefined;
  /** Of the key, with this one. */
  maxActive: number;
  /** The tenant may have only so many under way: the control plane's setting, where the tenant has none of its own. */
  hasQuota: boolean;
}

interface Count {
  tenant_id: string;
  /** Null: of the tenant. */
  key: string | null;
  active: number;
  max_active: number | null;
}

/**
 * As `assignClaims`, for executions of which only so many may be under way: exact over all replicas, since those that share a
 * limit are claimed one after the other. Whoever ends in between makes room only.
 * @param defaultQuota of tenants that have none of their own; 0: any number
 * @returns also those that had to be left, and whose limit is reached
 */
export async function assignLimitedClaims(
  sql: Sql,
  claims: readonly LimitedClaim[],
  assigned: number,
  defaultQuota: number,
): Promise<{ assigned: Assigned[]; left: Map<string, 'key' | 'tenant'> }> {
  return await sql.begin(async (transaction) => {
    await lock(transaction, claims);
    // What another replica has claimed meanwhile is to take no one's place.
    const waiting = await stillWaiting(
      transaction,
      claims.map(({ id }) => id),
    );
    const counts = await countActive(transaction, claims);
    const room = new Map(
      counts.map(({ tenant_id: tenantId, key, active, max_active: own }) => [
        nameOf(tenantId, key ?? undefined),
        { active, quota: (own ?? defaultQuota) || Number.POSITIVE_INFINITY },
      ]),
    );
    const left = new Map<string, 'key' | 'tenant'>();
    const granted = claims.filter((claim) => {
      if (!waiting.has(claim.id)) return false;
      const ofKey = claim.key === undefined ? undefined : room.get(nameOf(claim.tenantId, claim.key));
      const ofTenant = claim.hasQuota ? room.get(nameOf(claim.tenantId, undefined)) : undefined;
      const isTenantFull = ofTenant !== undefined && ofTenant.active >= ofTenant.quota;
      if (isTenantFull || (ofKey?.active ?? 0) >= claim.maxActive) {
        left.set(claim.id, isTenantFull ? 'tenant' : 'key');
        return false;
      }
      if (ofKey !== undefined) ofKey.active++;
      if (ofTenant !== undefined) ofTenant.active++;
      return true;
    });
    return { assigned: granted.length === 0 ? [] : await assignClaims(transaction, granted, assigned), left };
  });
}

/** Executions of a tenant that are under way, all of them or those with a key, and its quota. */
export async function readActive(
  sql: Sql,
  tenantId: string,
  key: string | undefined,
): Promise<{ active: number; maxActive: number | undefined }> {
  const claim = { tenantId, key, hasQuota: key === undefined };
  const [count] = await countActive(sql, [claim]);
  return { active: count?.active ?? 0, maxActive: count?.max_active ?? undefined };
}

type Limits = Pick<LimitedClaim, 'tenantId' | 'key' | 'hasQuota'>;

/** In one order, so that nobody waits for somebody who waits for him. */
async function lock(sql: AnySql, claims: readonly Limits[]): Promise<void> {
  const names = claims.flatMap(({ tenantId, key, hasQuota }) => [
    ...(key === undefined ? [] : [nameOf(tenantId, key)]),
    ...(hasQuota ? [nameOf(tenantId, undefined)] : []),
  ]);
  await sql`
    SELECT pg_advisory_xact_lock(${ADVISORY_LOCKS.concurrency}::int, number) FROM (
      SELECT DISTINCT hashtext(name) AS number FROM unnest(${[...new Set(names)]}::text[]) AS name ORDER BY number OFFSET 0
    ) AS names`;
}

/** A statement of its own: it sees what was committed while the locks were waited for. */
async function countActive(sql: AnySql, claims: readonly Limits[]): Promise<Count[]> {
  const keys = [...new Set(claims.flatMap(({ tenantId, key }) => (key === undefined ? [] : [nameOf(tenantId, key)])))];
  const tenants = [...new Set(claims.flatMap(({ tenantId, hasQuota }) => (hasQuota ? [tenantId] : [])))];
  return await sql<Count[]>`
    SELECT tenant_id, key, (
      SELECT count(*)::int FROM executions AS e
      WHERE e.tenant_id = given.tenant_id AND e.concurrency_key = given.key AND e.concurrency_key IS NOT NULL
        AND e.agent_id IS NOT NULL AND e.end_time IS NULL
    ) AS active, NULL::int AS max_active
    FROM (
      SELECT left(name, 36)::uuid AS tenant_id, substr(name, 38) AS key FROM unnest(${keys}::text[]) AS name
    ) AS given
    UNION ALL
    -- By the agents, each of which is of one tenant: the hot path has no index of its own for this.
    SELECT tenants.id, NULL, (
      SELECT count(*)::int FROM agents JOIN executions AS e ON e.agent_id = agents.id AND e.end_time IS NULL
      WHERE agents.tenant_id = tenants.id
    ), max_active
    FROM tenants WHERE id = ANY(${tenants}::uuid[])`;
}

/** A UUID, a space, and what follows of the key; the UUID alone for the tenant as a whole. */
function nameOf(tenantId: string, key: string | undefined): string {
  return key === undefined ? tenantId : `${tenantId} ${key}`;
}
