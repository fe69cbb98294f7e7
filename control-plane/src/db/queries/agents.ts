import type { Sql } from '../sql.ts';

export interface AgentRow {
  id: string;
  tenant_id: string;
  name: string;
  public_key: Uint8Array;
  labels: Record<string, string>;
  version: string;
  hardware: Uint8Array;
  isolation: number;
  slots: number;
  environments: string[];
  unavailable_environments: Record<string, string>;
  drain_requested: boolean;
  /** It takes no new work, because its process is stopping. */
  stopping: boolean;
  instance_id: string;
  compared_instance_id: string;
  boot_id: string;
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
  environments: string[];
  unavailableEnvironments: Record<string, string>;
  instanceId: string;
  bootId: string;
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
      INSERT INTO agents (id, tenant_id, name, public_key, labels, version, hardware, isolation, slots, environments,
        unavailable_environments)
      VALUES (${agent.id}, ${token.tenant_id}, ${agent.name}, ${agent.publicKey}, ${transaction.json(agent.labels)},
        ${agent.version}, ${agent.hardware}, ${agent.isolation}, ${agent.slots}, ${agent.environments},
        ${transaction.json(agent.unavailableEnvironments)})
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
        environments = ${facts.environments}, unavailable_environments = ${sql.json(facts.unavailableEnvironments)},
        lost_environments = ${lostEnvironments(sql, facts.environments)}, instance_id = ${facts.instanceId}, boot_id = ${facts.bootId}, link_time = now(), last_seen_time = now(),
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
    WITH left_alone AS (
      UPDATE agents SET last_seen_time = now(), replica_id = NULL,
        lease_end_time = now() + ${leftMs}::float8 * interval '1 millisecond'
      WHERE id = ${id} AND session = ${session}
      RETURNING tenant_id, id, name
    )
    INSERT INTO events (tenant_id, type, agent_id, data)
    SELECT tenant_id, 'agent.unlinked', id, jsonb_build_object('name', name) FROM left_alone`;
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

export async function recordHardware(sql: Sql, id: string, hardware: Uint8Array): Promise<void> {
  await sql`UPDATE agents SET hardware = ${hardware} WHERE id = ${id}`;
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

/** Agents of a tenant that are linked to other replicas than this one, and how many attempts each has; at most 1,000. */
export async function listAgentsElsewhere(
  sql: Sql,
  tenantId: string,
  replicaId: string,
): Promise<(AgentRow & { active: number })[]> {
  return await sql<(AgentRow & { active: number })[]>`
    SELECT *, (SELECT count(*)::int FROM executions AS e WHERE e.agent_id = agents.id AND e.end_time IS NULL) AS active
    FROM agents WHERE tenant_id = ${tenantId} AND replica_id <> ${replicaId} ORDER BY name, id LIMIT 1000`;
}

/** How many attempts each of some agents has; those without are left out. */
export async function countActive(sql: Sql, agentIds: readonly string[]): Promise<Map<string, number>> {
  if (agentIds.length === 0) return new Map();
  const rows = await sql<{ agent_id: string; active: number }[]>`
    SELECT agent_id, count(*)::int AS active FROM executions
    WHERE agent_id = ANY(${[...agentIds]}::uuid[]) AND end_time IS NULL GROUP BY agent_id`;
  return new Map(rows.map((row) => [row.agent_id, row.active]));
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
