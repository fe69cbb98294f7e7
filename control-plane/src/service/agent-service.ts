import { create, fromBinary } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { HarrierError, type Logger, matchesLabels, parseLabelSelector } from '@harrier/shared';
import {
  type Agent,
  AgentSchema,
  Agent_State as AgentState,
  type Hardware_Gpu as Gpu,
  HardwareSchema,
  type Isolation_Level as IsolationLevel,
  type ListAgentsRequest,
  ResourcesSchema,
} from '@harrier/shared/gen/agent';
import { Goodbye_Code as GoodbyeCode, ManagedServicesSchema, ServerMessageSchema } from '@harrier/shared/gen/link';
import type { AgentAsker } from '../agent-link/agent-questions.ts';
import type { AgentRegistry } from '../agent-link/agent-registry.ts';
import { createSecret, hashSecret } from '../auth/secret.ts';
import {
  type AgentReservations,
  type AgentRow,
  deleteAgent,
  insertJoinToken,
  listAgents,
  readAgentOf,
  readReservations,
  setDrainRequested,
} from '../db/queries/agents.ts';
import type { Sql } from '../db/sql.ts';
import { uuidv7 } from '../db/uuid.ts';
import { decodePageToken, encodePageToken, pageSizeOf, TEXT_SHAPE, UUID_SHAPE } from './page-token.ts';
import { takenOf } from './stored-candidate.ts';

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
  /** Asks agents that are linked here, and those that are linked to another replica. */
  here: AgentAsker;
  there: AgentAsker;
  logger: Logger;
}

/** A driver that hangs is waited for by the agent for some seconds; one of an older version does not answer at all. */
const CLEAR_GPU_TIMEOUT_MS = 60_000;

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
      const elsewhere = await this.#reservedElsewhere(rows);
      for (const row of rows) {
        const agent = this.#message(row, elsewhere);
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
    return this.#message(row, await this.#reservedElsewhere([row]));
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
    return this.#message(row, await this.#reservedElsewhere([row]));
  }

  /** @throws HarrierError not_found */
  async delete(tenantId: string, id: string): Promise<void> {
    if (!(await deleteAgent(this.#options.sql, tenantId, id))) throw notFound(id);
    this.#options.registry.get(id)?.channel.close(GoodbyeCode.REVOKED, 'the agent was deleted');
    this.#options.tellOthers(id);
    await this.#options.agentLost(id, 'the agent was deleted');
  }

  /**
   * Takes a quarantined GPU back into use, if its agent finds it fit for that.
   * @returns the card as it is now
   * @throws HarrierError not_found, failed_precondition when the agent is not linked, unavailable when it does not answer
   */
  async clearGpu(tenantId: string, id: string, gpuUuid: string, signal: AbortSignal): Promise<Gpu> {
    const { sql, registry, here, there, logger } = this.#options;
    const row = await readAgentOf(sql, tenantId, id);
    if (row === undefined) throw notFound(id);
    const isHere = registry.get(id) !== undefined;
    if (!isHere && !this.#isElsewhere(row)) {
      const message = `agent ${row.name} is not linked, so that it cannot look at its GPUs; try again when it is`;
      throw new HarrierError('failed_precondition', message, { field: 'id' });
    }
    const timeout = AbortSignal.timeout(CLEAR_GPU_TIMEOUT_MS);
    const question = { case: 'clearGpu', value: { gpuUuid } } as const;
    try {
      const asked = (isHere ? here : there).ask({ id, tenantId }, question, AbortSignal.any([signal, timeout]));
      const { gpu } = await asked;
      if (gpu === undefined) {
        const message = `agent ${row.name} has no GPU ${gpuUuid}; see harrier agents get ${row.name}`;
        throw new HarrierError('not_found', message, { field: 'gpu_uuid' });
      }
      logger.info({ agentId: id, gpu: gpuUuid, state: gpu.state, reason: gpu.stateReason }, 'GPU asked to be cleared');
      return gpu;
    } catch (error) {
      if (!timeout.aborted || signal.aborted) throw error;
      const message = `agent ${row.name} has not answered within ${CLEAR_GPU_TIMEOUT_MS / 1000} s; try again`;
      throw new HarrierError('unavailable', message, { cause: error });
    }
  }

  async createJoinToken(tenantId: string, ttlMs: number): Promise<{ token: string; expireTime: Date }> {
    const token = createSecret('hj');
    const id = uuidv7();
    const secretHash = hashSecret(token);
    return { token, expireTime: await insertJoinToken(this.#options.sql, { id, tenantId, secretHash, ttlMs }) };
  }

  /** What the attempts of those take that are linked to other replicas. */
  async #reservedElsewhere(rows: readonly AgentRow[]): Promise<Map<string, AgentReservations>> {
    return await readReservations(
      this.#options.sql,
      rows.filter((row) => this.#isElsewhere(row)).map(({ id }) => id),
    );
  }

  #isElsewhere(row: AgentRow): boolean {
    const { registry, replicaId } = this.#options;
    return registry.get(row.id) === undefined && row.replica_id !== null && row.replica_id !== replicaId;
  }

  #message(row: AgentRow, elsewhere: ReadonlyMap<string, AgentReservations>): Agent {
    const linked = this.#options.registry.get(row.id);
    const there = elsewhere.get(row.id) ?? NOTHING;
    const taken = linked === undefined ? takenOf(there) : linked.taken;
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
      services: fromBinary(ManagedServicesSchema, linked?.services ?? row.services).services,
      activeExecutions: linked?.executions ?? there.active,
      createTime: timestampFromDate(row.create_time),
      drainRequested: row.drain_requested,
      metricsAddress: row.metrics_address,
      reserved: {
        cpu: (taken?.cpuMilli ?? 0) / 1000,
        memoryBytes: BigInt(taken?.memoryBytes ?? 0),
        gpus: taken?.gpus.size ?? 0,
        slurmJobs: taken?.slurmJobs ?? 0,
      },
    });
    if (row.capacity !== null) {
      const { cpu, memory_bytes: memoryBytes, gpus, slurm_jobs: slurmJobs } = row.capacity;
      agent.capacity = create(ResourcesSchema, { cpu, memoryBytes: BigInt(memoryBytes), gpus, slurmJobs });
    }
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

const NOTHING: AgentReservations = { active: 0, reservations: [] };

function notFound(id: string): HarrierError {
  return new HarrierError('not_found', `there is no agent ${id}`, { field: 'id' });
}
