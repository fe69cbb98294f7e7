import { create, fromBinary } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { HarrierError, matchesLabels, parseLabelSelector } from '@harrier/shared';
import {
  type Agent,
  AgentSchema,
  Agent_State as AgentState,
  HardwareSchema,
  type Isolation_Level as IsolationLevel,
  type ListAgentsRequest,
} from '@harrier/shared/gen/agent';
import { Goodbye_Code as GoodbyeCode, ServerMessageSchema } from '@harrier/shared/gen/link';
import type { AgentRegistry } from '../agent-link/agent-registry.ts';
import { createSecret, hashSecret } from '../auth/secret.ts';
import {
  type AgentRow,
  countActive,
  deleteAgent,
  insertJoinToken,
  listAgents,
  readAgentOf,
  setDrainRequested,
} from '../db/queries/agents.ts';
import type { Sql } from '../db/sql.ts';
import { uuidv7 } from '../db/uuid.ts';
import { decodePageToken, encodePageToken, pageSizeOf, TEXT_SHAPE, UUID_SHAPE } from './page-token.ts';

export interface AgentServiceOptions {
  sql: Sql;
  /** This replica. */
  replicaId: string;
  registry: AgentRegistry;
  /** The agent may be linked to another replica, which has to look at its row. */
  tellOthers: (agentId: string) => void;
  /** Work may be placed differently now. */
  capacityChanged: () => void;
  /** The agent will not come back. */
  agentLost: (agentId: string, reason: string) => Promise<unknown>;
}

/** Shows and steers the agents of a tenant. */
export class AgentService {
  readonly #options: AgentServiceOptions;

  constructor(options: AgentServiceOptions) {
    this.#options = options;
  }

  async list(tenantId: string, request: ListAgentsRequest): Promise<{ agents: Agent[]; nextPageToken: string }> {
    const selector = parseLabelSelector(request.labelSelector, 'label_selector');
    const limit = pageSizeOf(request.pageSize);
    const position = decodePageToken(request.pageToken, [TEXT_SHAPE, UUID_SHAPE]);
    let after = position === undefined ? undefined : { name: position[0] ?? '', id: position[1] ?? '' };
    const found: Agent[] = [];
    while (true) {
      const rows = await listAgents(this.#options.sql, tenantId, limit + 1, after);
      const active = await this.#activeElsewhere(rows);
      for (const row of rows) {
        const agent = this.#message(row, active);
        const wanted = request.state === AgentState.STATE_UNSPECIFIED || agent.state === request.state;
        if (!wanted || !matchesLabels(selector, agent.labels)) continue;
        if (found.length === limit) {
          const last = found.at(-1);
          return { agents: found, nextPageToken: encodePageToken(last?.name ?? '', last?.id ?? '') };
        }
        found.push(agent);
      }
      const last = rows.at(-1);
      if (last === undefined || rows.length <= limit) return { agents: found, nextPageToken: '' };
      after = { name: last.name, id: last.id };
    }
  }

  /** @throws HarrierError not_found */
  async get(tenantId: string, id: string): Promise<Agent> {
    const row = await readAgentOf(this.#options.sql, tenantId, id);
    if (row === undefined) throw notFound(id);
    return this.#message(row, await this.#activeElsewhere([row]));
  }

  /** Begins or ends a drain. @throws HarrierError not_found */
  async setDraining(tenantId: string, id: string, draining: boolean): Promise<Agent> {
    const row = await setDrainRequested(this.#options.sql, tenantId, id, draining);
    if (row === undefined) throw notFound(id);
    const { registry } = this.#options;
    registry.setDraining(id, draining);
    registry.send(id, create(ServerMessageSchema, { message: { case: 'drain', value: { draining } } }));
    this.#options.tellOthers(id);
    this.#options.capacityChanged();
    return this.#message(row, await this.#activeElsewhere([row]));
  }

  /** @throws HarrierError not_found */
  async delete(tenantId: string, id: string): Promise<void> {
    if (!(await deleteAgent(this.#options.sql, tenantId, id))) throw notFound(id);
    this.#options.registry.get(id)?.channel.close(GoodbyeCode.REVOKED, 'the agent was deleted');
    this.#options.tellOthers(id);
    await this.#options.agentLost(id, 'the agent was deleted');
  }

  async createJoinToken(tenantId: string, ttlMs: number): Promise<{ token: string; expireTime: Date }> {
    const token = createSecret('hj');
    const id = uuidv7();
    const secretHash = hashSecret(token);
    return { token, expireTime: await insertJoinToken(this.#options.sql, { id, tenantId, secretHash, ttlMs }) };
  }

  /** How many attempts those have that are linked to other replicas. */
  async #activeElsewhere(rows: readonly AgentRow[]): Promise<Map<string, number>> {
    return await countActive(
      this.#options.sql,
      rows.filter((row) => this.#isElsewhere(row)).map(({ id }) => id),
    );
  }

  #isElsewhere(row: AgentRow): boolean {
    const { registry, replicaId } = this.#options;
    return registry.get(row.id) === undefined && row.replica_id !== null && row.replica_id !== replicaId;
  }

  #message(row: AgentRow, active: ReadonlyMap<string, number>): Agent {
    const linked = this.#options.registry.get(row.id);
    const draining = linked?.draining ?? (row.drain_requested || row.stopping);
    const isLinked = linked !== undefined || this.#isElsewhere(row);
    const agent = create(AgentSchema, {
      id: row.id,
      name: row.name,
      state: isLinked ? (draining ? AgentState.DRAINING : AgentState.ONLINE) : AgentState.OFFLINE,
      labels: row.labels,
      version: row.version,
      hardware: fromBinary(HardwareSchema, linked?.hardware ?? row.hardware),
      isolation: { level: (linked?.isolation ?? row.isolation) as IsolationLevel },
      slots: row.slots,
      environments: linked === undefined ? row.environments : [...linked.environments],
      unavailableEnvironments: { ...(linked?.unavailableEnvironments ?? row.unavailable_environments) },
      activeExecutions: linked?.active ?? active.get(row.id) ?? 0,
      createTime: timestampFromDate(row.create_time),
      drainRequested: row.drain_requested,
    });
    if (linked?.load !== undefined) agent.load = linked.load;
    if (!isLinked && row.brake_end_time !== null && row.brake_end_time.getTime() > Date.now()) {
      agent.brakeEndTime = timestampFromDate(row.brake_end_time);
    }
    if (row.link_time !== null) agent.linkTime = timestampFromDate(row.link_time);
    const seen = linked === undefined ? row.last_seen_time : new Date(linked.lastSeenMs);
    if (seen !== null) agent.lastSeenTime = timestampFromDate(seen);
    return agent;
  }
}

function notFound(id: string): HarrierError {
  return new HarrierError('not_found', `there is no agent ${id}`, { field: 'id' });
}
