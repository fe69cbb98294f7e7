import type { AnySql, Sql } from '../sql.ts';
import type { ExecutionReservation } from './read-executions.ts';
import { tellUnlinked } from './replicas.ts';

/** What executions of an agent can have altogether: processors, bytes, cards, jobs of Slurm; 0: it says nothing of it. */
export interface AgentCapacity {
  cpu: number;
  memory_bytes: number;
  gpus: number;
  slurm_jobs: number;
}

export interface AgentRow {
  id: string;
  tenant_id: string;
  name: string;
  public_key: Uint8Array;
  labels: Record<string, string>;
  version: string;
  hardware: Uint8Array;
  services: Uint8Array;
  isolation: number;
  slots: number;
  /** Null: it has told none. */
  capacity: AgentCapacity | null;
  environments: string[];
  unavailable_environments: Record<string, string>;
  drain_requested: boolean;
  /** It takes no new work, because its process is stopping. */
  stopping: boolean;
  instance_id: string;
  compared_instance_id: string;
  boot_id: string;
  /** `HOST:PORT`; empty: not to be had from outside its host. */
  metrics_address: string;
  /** Number of its newest link. */
  session: number;
  /** The replica that it is linked to. */
  replica_id: string | null;
  lease_end_time: Date | null;
  /** Until when its work is kept for it although its lease has ended. */
  brake_end_time: Date | null;
  create_time: Date;
  link_time: Date | null;
  last_seen_time: Date | null;
}

export async function readAgent(sql: Sql, id: string): Promise<AgentRow | undefined> {
  const [row] = await sql<AgentRow[]>`SELECT * FROM agents WHERE id = ${id}`;
  return row;
}

/** What an agent says of itself when its link opens. */
export interface AgentFacts {
  name: string;
  labels: Record<string, string>;
  version: string;
  hardware: Uint8Array;
  isolation: number;
  slots: number;
  capacity: AgentCapacity | null;
  environments: string[];
  unavailableEnvironments: Record<string, string>;
  instanceId: string;
  bootId: string;
  metricsAddress: string;
  /** Number of the link among the tries of its process; 0: it does not count them. */
  dial: number;
}

/**
 * Makes an agent from a join token, which is used up by it. The same key with the same token again answers the same agent:
 * the answer to the first try may have been lost.
 * @returns undefined when the token is unknown, expired, or was used by another agent.
 */
export async function joinAgent(
  sql: Sql,
  agent: AgentFacts & { id: string; publicKey: Uint8Array; tokenHash: Uint8Array },
): Promise<AgentRow | undefined> {
  return await sql.begin(async (transaction) => {
    const [token] = await transaction<{ id: string; tenant_id: string; agent_id: string | null }[]>`
      SELECT id, tenant_id, agent_id FROM join_tokens
      WHERE secret_hash = ${agent.tokenHash} AND expire_time > now() FOR UPDATE`;
    if (token === undefined) return undefined;
    if (token.agent_id !== null) {
      const [row] = await transaction<AgentRow[]>`
        SELECT * FROM agents WHERE id = ${token.agent_id} AND public_key = ${agent.publicKey}`;
      return row;
    }
    const [row] = await transaction<AgentRow[]>`
      INSERT INTO agents (id, tenant_id, name, public_key, labels, version, hardware, isolation, slots, capacity,
        environments, unavailable_environments)
      VALUES (${agent.id}, ${token.tenant_id}, ${agent.name}, ${agent.publicKey}, ${transaction.json(agent.labels)},
        ${agent.version}, ${agent.hardware}, ${agent.isolation}, ${agent.slots}, ${jsonOf(transaction, agent.capacity)},
        ${agent.environments}, ${transaction.json(agent.unavailableEnvironments)})
      ON CONFLICT (public_key) DO NOTHING RETURNING *`;
    if (row === undefined) return undefined;
    await transaction`UPDATE join_tokens SET agent_id = ${row.id} WHERE id = ${token.id}`;
    await transaction`INSERT INTO events (tenant_id, type, agent_id, data)
      VALUES (${row.tenant_id}, 'agent.joined', ${row.id}, ${transaction.json({ name: agent.name })})`;
    return row;
  });
}

/**
 * Records that a link to a replica opened, with what the agent says of itself. It has the number after that of the link before.
 * The order is that in which a process has dialled, not that in which its hellos have come.
 * @returns the row as it was before, and whether a later try of the same process was recorded already: then nothing was
 * written; undefined when deleted.
 */
export async function recordLink(
  sql: Sql,
  id: string,
  facts: AgentFacts,
  replicaId: string,
): Promise<(AgentRow & { is_late: boolean }) | undefined> {
  const [row] = await sql<(AgentRow & { is_late: boolean })[]>`
    WITH before AS (
      SELECT *, ${facts.dial}::bigint > 0 AND instance_id = ${facts.instanceId} AND dial > ${facts.dial}::bigint AS is_late
      FROM agents WHERE id = ${id} FOR UPDATE
    ), told AS (
      INSERT INTO events (tenant_id, type, agent_id, data)
      SELECT tenant_id, 'agent.linked', id, ${sql.json({ name: facts.name, version: facts.version })}
      FROM before WHERE NOT is_late
    ), linked AS (
      UPDATE agents SET name = ${facts.name}, labels = ${sql.json(facts.labels)}, version = ${facts.version},
        hardware = ${facts.hardware}, isolation = ${facts.isolation}, slots = ${facts.slots},
        capacity = ${jsonOf(sql, facts.capacity)},
        environments = ${facts.environments}, unavailable_environments = ${sql.json(facts.unavailableEnvironments)},
        lost_environments = ${lostEnvironments(sql, facts.environments)}, instance_id = ${facts.instanceId}, boot_id = ${facts.bootId},
        metrics_address = ${facts.metricsAddress}, link_time = now(), last_seen_time = now(),
        session = agents.session + 1, dial = ${facts.dial}, stopping = false, replica_id = ${replicaId}, lease_end_time = NULL,
          brake_end_time = NULL
      FROM before WHERE agents.id = before.id AND NOT is_late
    )
    SELECT * FROM before`;
  return row;
}

/** Records that what the process holds was compared with what the database gives to it, unless a newer link was opened. */
export async function recordCompared(sql: Sql, id: string, session: number, instanceId: string): Promise<void> {
  await sql`UPDATE agents SET compared_instance_id = ${instanceId} WHERE id = ${id} AND session = ${session}`;
}

/** Records the end of a link, unless a newer one was opened, and what is left of the lease. */
export async function recordUnlink(sql: Sql, id: string, session: number, leftMs: number): Promise<void> {
  await sql`
    WITH before AS (
      SELECT id, replica_id FROM agents WHERE id = ${id} AND session = ${session} FOR UPDATE
    ), ended AS (
      UPDATE agents SET last_seen_time = now(), replica_id = NULL,
        lease_end_time = now() + ${leftMs}::float8 * interval '1 millisecond'
      FROM before WHERE agents.id = before.id
      RETURNING agents.tenant_id, agents.id, agents.name, before.replica_id
    ), unlinked AS (
      -- Otherwise it was told with the end of its replica.
      SELECT * FROM ended WHERE replica_id IS NOT NULL
    )
    ${tellUnlinked(sql)}`;
}

/** The agent says on a link that its process is stopping, or goes on after all. */
export async function recordStopping(sql: Sql, id: string, session: number, stopping: boolean): Promise<void> {
  await sql`UPDATE agents SET stopping = ${stopping} WHERE id = ${id} AND session = ${session}`;
}

/** A link as memory has it. */
export interface BelievedLink {
  id: string;
  session: number;
  drain_requested: boolean;
}

/** Linked agents of which the database knows something else. @returns their rows; null for those that were deleted */
export async function findChangedAgents(sql: Sql, links: BelievedLink[]): Promise<Map<string, AgentRow | null>> {
  const rows = await sql<(Partial<AgentRow> & { believed_id: string })[]>`
    WITH input AS MATERIALIZED (
      SELECT * FROM json_to_recordset(${JSON.stringify(links)}::text::json)
        AS input(id uuid, session bigint, drain_requested boolean)
      -- Always true; see finish-executions.ts.
      WHERE session % 1 = 0
    )
    SELECT input.id AS believed_id, agents.* FROM input LEFT JOIN agents ON agents.id = input.id
    WHERE agents.id IS NULL OR agents.session <> input.session OR agents.drain_requested <> input.drain_requested`;
  return new Map(rows.map((row) => [row.believed_id, row.id == null ? null : (row as AgentRow)]));
}

/** An agent whose metrics Prometheus can reach. */
export interface MetricsTarget extends Pick<AgentRow, 'id' | 'name' | 'version' | 'labels' | 'metrics_address'> {
  /** It is linked to a replica. */
  linked: boolean;
  draining: boolean;
}

/** Of all tenants, linked or not: that one does not answer is what Prometheus is to notice. */
export async function listMetricsTargets(sql: Sql): Promise<MetricsTarget[]> {
  return await sql<MetricsTarget[]>`
    SELECT id, name, version, labels, metrics_address, replica_id IS NOT NULL AS linked,
      drain_requested OR stopping AS draining
    FROM agents WHERE metrics_address <> '' ORDER BY name, id`;
}

/** Agents of all tenants that are linked to no replica. */
export async function countOfflineAgents(sql: Sql): Promise<number> {
  const [row] = await sql<{ count: number }[]>`SELECT count(*)::int AS count FROM agents WHERE replica_id IS NULL`;
  return row?.count ?? 0;
}

export async function recordHardware(sql: Sql, id: string, hardware: Uint8Array): Promise<void> {
  await sql`UPDATE agents SET hardware = ${hardware} WHERE id = ${id}`;
}

export async function recordIsolation(sql: Sql, id: string, session: number, level: number): Promise<void> {
  await sql`UPDATE agents SET isolation = ${level} WHERE id = ${id} AND session = ${session}`;
}

export async function recordServices(sql: Sql, id: string, session: number, services: Uint8Array): Promise<void> {
  await sql`UPDATE agents SET services = ${services} WHERE id = ${id} AND session = ${session}`;
}

export async function recordCapacity(sql: Sql, id: string, capacity: AgentCapacity | null): Promise<void> {
  await sql`UPDATE agents SET capacity = ${jsonOf(sql, capacity)} WHERE id = ${id}`;
}

function jsonOf(sql: AnySql, capacity: AgentCapacity | null) {
  return capacity === null ? null : sql.json({ ...capacity });
}

export async function recordEnvironments(
  sql: Sql,
  id: string,
  environments: string[],
  unavailable: Record<string, string>,
): Promise<void> {
  await sql`UPDATE agents SET environments = ${environments}, unavailable_environments = ${sql.json(unavailable)},
      lost_environments = ${lostEnvironments(sql, environments)}
    WHERE id = ${id}`;
}

/** What an agent has lost, when it has so many from now on: what it had before is lost now. */
function lostEnvironments(sql: Sql, environments: string[]) {
  return sql`agents.lost_environments - ${environments}::text[] || coalesce((
    SELECT jsonb_object_agg(had, now()) FROM unnest(agents.environments) AS had
    WHERE had <> ALL(${environments}::text[])), '{}')`;
}

export async function readAgentOf(sql: Sql, tenantId: string, id: string): Promise<AgentRow | undefined> {
  const [row] = await sql<AgentRow[]>`SELECT * FROM agents WHERE tenant_id = ${tenantId} AND id = ${id}`;
  return row;
}

export interface AgentEnvironmentsRow
  extends Pick<AgentRow, 'id' | 'name' | 'environments' | 'unavailable_environments'> {
  /** What it has lost a short time ago. */
  lately: string[];
}

/**
 * What each agent of a tenant can prepare, as when it was last linked, and what it could within the last `latelyMs`; at most
 * 1,000, by name.
 */
export async function listAgentEnvironments(
  sql: Sql,
  tenantId: string,
  latelyMs: number,
): Promise<AgentEnvironmentsRow[]> {
  return await sql<AgentEnvironmentsRow[]>`
    SELECT id, name, environments, unavailable_environments, ARRAY(
      SELECT key FROM jsonb_each_text(lost_environments)
      WHERE value::timestamptz > now() - ${latelyMs}::float8 * interval '1 millisecond'
    ) AS lately
    FROM agents WHERE tenant_id = ${tenantId} ORDER BY name, id LIMIT 1000`;
}

/** What attempts take of an agent: how many there are, and what is reserved by those that take more than a slot. */
export interface AgentReservations {
  active: number;
  reservations: { id: string; reservation: ExecutionReservation }[];
}

/** Agents of a tenant that are linked to other replicas than this one, and what their attempts take; at most 1,000. */
export async function listAgentsElsewhere(
  sql: Sql,
  tenantId: string,
  replicaId: string,
): Promise<(AgentRow & AgentReservations)[]> {
  return await sql<(AgentRow & AgentReservations)[]>`
    SELECT agents.*, taken.active, coalesce(taken.reservations, '[]') AS reservations
    FROM agents, LATERAL (${attemptsOf(sql)}) AS taken
    WHERE tenant_id = ${tenantId} AND replica_id <> ${replicaId} ORDER BY name, agents.id LIMIT 1000`;
}

/** What the attempts of some agents take; those without are left out. */
export async function readReservations(sql: Sql, agentIds: readonly string[]): Promise<Map<string, AgentReservations>> {
  if (agentIds.length === 0) return new Map();
  const rows = await sql<(AgentReservations & { id: string })[]>`
    SELECT agents.id, taken.active, coalesce(taken.reservations, '[]') AS reservations
    FROM unnest(${[...agentIds]}::uuid[]) AS agents(id), LATERAL (${attemptsOf(sql)}) AS taken WHERE taken.active > 0`;
  return new Map(rows.map((row) => [row.id, row]));
}

function attemptsOf(sql: Sql) {
  return sql`
    SELECT count(*)::int AS active,
      json_agg(json_build_object('id', e.id, 'reservation', e.reservation)) FILTER (WHERE e.reservation IS NOT NULL)
        AS reservations
    FROM executions AS e WHERE e.agent_id = agents.id AND e.end_time IS NULL`;
}

/** Agents of a tenant that are linked to no replica; at most `limit`, by name. */
export async function listUnlinkedAgents(sql: Sql, tenantId: string, limit: number): Promise<AgentRow[]> {
  return await sql<AgentRow[]>`
    SELECT * FROM agents WHERE tenant_id = ${tenantId} AND replica_id IS NULL ORDER BY name, id LIMIT ${limit}`;
}

/** By name, then id. */
export async function listAgents(
  sql: Sql,
  tenantId: string,
  limit: number,
  after: { name: string; id: string } | undefined,
): Promise<AgentRow[]> {
  return await sql<AgentRow[]>`
    SELECT * FROM agents WHERE tenant_id = ${tenantId}
      ${after === undefined ? sql`` : sql`AND (name, id) > (${after.name}, ${after.id}::uuid)`}
    ORDER BY name, id LIMIT ${limit}`;
}

export async function setDrainRequested(
  sql: Sql,
  tenantId: string,
  id: string,
  requested: boolean,
): Promise<AgentRow | undefined> {
  const [row] = await sql<AgentRow[]>`
    WITH before AS (
      SELECT id, drain_requested FROM agents WHERE tenant_id = ${tenantId} AND id = ${id} FOR UPDATE
    ), told AS (
      INSERT INTO events (tenant_id, type, agent_id, data)
      SELECT tenant_id, ${requested ? 'agent.drained' : 'agent.resumed'}, agents.id, jsonb_build_object('name', name)
      FROM agents JOIN before ON agents.id = before.id WHERE before.drain_requested <> ${requested}
    )
    UPDATE agents SET drain_requested = ${requested} FROM before WHERE agents.id = before.id RETURNING agents.*`;
  return row;
}

export async function deleteAgent(sql: Sql, tenantId: string, id: string): Promise<boolean> {
  const rows = await sql`
    WITH deleted AS (
      DELETE FROM agents WHERE tenant_id = ${tenantId} AND id = ${id} RETURNING tenant_id, id, name
    )
    INSERT INTO events (tenant_id, type, agent_id, data)
    SELECT tenant_id, 'agent.deleted', id, jsonb_build_object('name', name) FROM deleted
    RETURNING id`;
  return rows.length > 0;
}

export async function insertJoinToken(
  sql: Sql,
  token: { id: string; tenantId: string; secretHash: Uint8Array; ttlMs: number },
): Promise<Date> {
  const [row] = await sql<{ expire_time: Date }[]>`
    INSERT INTO join_tokens (id, tenant_id, secret_hash, expire_time)
    VALUES (${token.id}, ${token.tenantId}, ${token.secretHash},
      now() + ${token.ttlMs}::float8 * interval '1 millisecond')
    RETURNING expire_time`;
  if (row === undefined) throw new Error('the join token was not stored');
  return row.expire_time;
}
