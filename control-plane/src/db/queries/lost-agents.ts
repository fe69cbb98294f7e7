import type { Sql } from '../sql.ts';
import { isReplicaGone, type ReplicaBeat } from './replicas.ts';

/** Whether the lease of an agent has ended while it had attempts: what the look finds is what the list has. */
const isLeaseless = (sql: Sql) => sql`lease_end_time <= now()
  AND EXISTS (SELECT 1 FROM executions AS e WHERE e.agent_id = agents.id AND e.end_time IS NULL)`;

/** Whether the lease of an agent ends within so many milliseconds. */
const endsWithin = (sql: Sql, withinMs: number) => sql`lease_end_time > now()
  AND lease_end_time < now() + ${withinMs}::float8 * interval '1 millisecond'`;

/** What there is to do for the leases. */
export interface LeaseLook {
  replicas: ReplicaBeat[];
  /** An agent without a lease has attempts, or is linked to a replica that is gone, or somebody's work is kept for them. */
  is_due: boolean;
  /** When the next lease ends; null when none does within the time that was asked for. */
  next_ms: number | null;
}

/** Everything by which one sees, in one statement, that there is nothing to do: which is nearly always so. */
export async function lookAtLeases(sql: Sql, withinMs: number): Promise<LeaseLook> {
  const [look] = await sql<LeaseLook[]>`
    SELECT
      (SELECT coalesce(json_agg(json_build_object('id', id, 'name', name, 'beat', beat_time::text)), '[]'::json)
        FROM replicas) AS replicas,
      EXISTS (SELECT 1 FROM agents WHERE ${isLeaseless(sql)})
      OR EXISTS (SELECT 1 FROM agents WHERE replica_id IS NOT NULL AND ${isReplicaGone(sql)})
      OR EXISTS (SELECT 1 FROM agents WHERE brake_end_time IS NOT NULL) AS is_due,
      (SELECT extract(epoch FROM min(lease_end_time) - now())::float8 * 1000 FROM agents
        WHERE ${endsWithin(sql, withinMs)}) AS next_ms`;
  if (look === undefined) throw new Error('the leases were not looked at');
  return look;
}

/** An agent whose lease has ended, with attempts. */
export interface LeaselessAgent {
  id: string;
  /** Null when the agent was deleted. */
  name: string | null;
  /** How long ago its lease ended. */
  ended_ms: number;
}

/** Agents whose lease has ended while they had attempts. */
export async function listLeaselessAgents(sql: Sql): Promise<LeaselessAgent[]> {
  return await sql<LeaselessAgent[]>`
    SELECT id, name, extract(epoch FROM now() - lease_end_time)::float8 * 1000 AS ended_ms FROM agents
    WHERE ${isLeaseless(sql)}`;
}

/**
 * Tells that an agent is taken for lost, once for each lease that has ended.
 * @returns for how many milliseconds its lease has been over; undefined: it has one, or was deleted
 */
export async function recordLostAgent(sql: Sql, id: string): Promise<number | undefined> {
  const [row] = await sql<{ ended_ms: number }[]>`
    WITH leaseless AS (
      SELECT tenant_id, id, name, lost_time, lease_end_time FROM agents
      WHERE id = ${id} AND lease_end_time <= now() FOR UPDATE
    ), lost AS (
      UPDATE agents SET lost_time = now() FROM leaseless
      WHERE agents.id = leaseless.id AND (leaseless.lost_time IS NULL OR leaseless.lost_time < leaseless.lease_end_time)
      RETURNING leaseless.tenant_id, leaseless.id, leaseless.name
    ), told AS (
      INSERT INTO events (tenant_id, type, agent_id, data)
      SELECT tenant_id, 'agent.lost', id, jsonb_build_object('name', name) FROM lost
    )
    SELECT extract(epoch FROM now() - lease_end_time)::float8 * 1000 AS ended_ms FROM leaseless`;
  return row?.ended_ms;
}

/**
 * For statements that end an attempt because its agent has no lease: `WITH`, the condition, and whether the agent has none. A link
 * waits until such a statement is committed, and finds what it has done; the statement finds a link that was there first.
 */
export function fencedByLease(sql: Sql, agentId: string | null) {
  return {
    held: sql`held AS MATERIALIZED (
      SELECT coalesce(lease_end_time <= now(), false) AS is_over FROM agents WHERE id = ${agentId}::uuid FOR SHARE
    ), `,
    // An agent that was deleted has no row.
    isOver: sql`AND (SELECT is_over FROM held) IS NOT FALSE`,
  };
}

/** The same for a statement that anybody may carry out. */
export function notFenced(sql: Sql) {
  return { held: sql``, isOver: sql`` };
}

/**
 * Attempts whose agent nobody would ever take for lost: it was deleted while its attempts were being ended, or it has never
 * been linked since leases are recorded. The latter get a lease of `leaseMs` from now; the others are answered.
 */
export async function listAbandonedAgents(sql: Sql, leaseMs: number): Promise<LeaselessAgent[]> {
  return await sql<LeaselessAgent[]>`
    WITH busy AS (
      SELECT DISTINCT agent_id FROM executions WHERE agent_id IS NOT NULL AND end_time IS NULL
    ), given AS (
      UPDATE agents SET lease_end_time = now() + ${leaseMs}::float8 * interval '1 millisecond'
      FROM busy WHERE agents.id = busy.agent_id AND replica_id IS NULL AND lease_end_time IS NULL
    )
    SELECT agent_id AS id, NULL AS name, 0::float8 AS ended_ms FROM busy
    WHERE NOT EXISTS (SELECT 1 FROM agents WHERE agents.id = busy.agent_id)`;
}

/** When the next lease ends; undefined when none does within `withinMs`. */
export async function nextLeaseEnd(sql: Sql, withinMs: number): Promise<{ inMs: number } | undefined> {
  const [row] = await sql<{ in_ms: number }[]>`
    SELECT extract(epoch FROM lease_end_time - now())::float8 * 1000 AS in_ms FROM agents
    WHERE ${endsWithin(sql, withinMs)}
    ORDER BY lease_end_time LIMIT 1`;
  return row === undefined ? undefined : { inMs: row.in_ms };
}

export interface RecentLease {
  id: string;
  tenant_id: string;
  left_ms: number | null;
}

/** Agents that are linked, or were within the last `sinceMs`: when their lease ends, by now; null while linked. */
export async function listRecentLeases(sql: Sql, sinceMs: number): Promise<RecentLease[]> {
  return await sql<RecentLease[]>`
    SELECT id, tenant_id, CASE WHEN replica_id IS NULL THEN extract(epoch FROM lease_end_time - now())::float8 * 1000 END AS left_ms
    FROM agents
    WHERE replica_id IS NOT NULL OR lease_end_time > now() - ${sinceMs}::float8 * interval '1 millisecond'`;
}

/**
 * Records whose work is kept for them; nobody else's is.
 * @param held by agent, for how many milliseconds from now at most
 */
export async function recordBrake(sql: Sql, held: ReadonlyMap<string, number>): Promise<void> {
  await sql`
    WITH held AS (
      SELECT * FROM unnest(${[...held.keys()]}::uuid[], ${[...held.values()]}::float8[]) AS held (id, for_ms)
    )
    UPDATE agents SET brake_end_time = CASE
      WHEN agents.replica_id IS NULL THEN now() + held.for_ms * interval '1 millisecond' END
    FROM agents AS known LEFT JOIN held ON held.id = known.id
    WHERE agents.id = known.id AND (known.brake_end_time IS NOT NULL OR held.id IS NOT NULL)`;
}

/** An agent whose work is kept for it although its lease has ended. */
export interface BrakedAgent {
  id: string;
  name: string;
  /** Until then at most. */
  brake_end_time: Date;
}

export async function listBrakedAgents(sql: Sql): Promise<BrakedAgent[]> {
  return await sql<BrakedAgent[]>`
    SELECT id, name, brake_end_time FROM agents WHERE brake_end_time IS NOT NULL AND brake_end_time > now()`;
}
