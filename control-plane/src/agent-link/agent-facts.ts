import { isDeepStrictEqual } from 'node:util';
import { clone, create, equals, fromBinary, toBinary } from '@bufbuild/protobuf';
import { type Logger, messageOf } from '@harrier/shared';
import {
  Hardware_Gpu_State as GpuState,
  type Hardware,
  HardwareSchema,
  type ManagedService,
  type Resources,
} from '@harrier/shared/gen/agent';
import { type EnvironmentSupport, type Heartbeat, type Hello, ManagedServicesSchema } from '@harrier/shared/gen/link';
import {
  type AgentRow,
  recordCapacity,
  recordEnvironments,
  recordHardware,
  recordIsolation,
  recordServices,
  recordStopping,
} from '../db/queries/agents.ts';
import type { Sql } from '../db/sql.ts';
import type { AgentRegistry, LinkedAgent } from './agent-registry.ts';
import { capacityOf, storedCapacity } from './capacity.ts';
import { gpuInventory } from './gpu-inventory.ts';
import { environmentFacts } from './handshake.ts';

export interface AgentFactsOptions {
  sql: Sql;
  registry: AgentRegistry;
  logger: Logger;
  events: {
    /** Room may have appeared. */
    onCapacityChanged(): void;
  };
}

/** One for all: with thousands of agents an empty array for each of them shows. */
const NO_BYTES = new Uint8Array();

/**
 * What an agent tells of itself and its host while it is linked. This replica keeps all of it in memory; only what changed, and is
 * more than the load of the moment, is written to the database, where the other replicas read it: no write for each beat.
 */
export class AgentFacts {
  readonly #options: AgentFactsOptions;
  #recorded: Promise<void> | undefined;

  constructor(options: AgentFactsOptions) {
    this.#options = options;
  }

  /** @param before what the database had when the hello came; the handshake has stored the rest of the hello */
  linked(before: AgentRow, agent: LinkedAgent): void {
    if (!sameBytes(before.services, agent.services)) this.#recordServices(agent);
  }

  told(agent: LinkedAgent, beat: Heartbeat): void {
    // In place: what lives from one beat to the next would be moved among the old objects, thousands of times a second.
    if (agent.load !== undefined && beat.load !== undefined) Object.assign(agent.load, beat.load);
    else agent.load ??= beat.load;
    const level = beat.isolation?.level ?? agent.isolation;
    if (level !== agent.isolation) this.#isolationChanged(agent, level);
    if (agent.stopping !== beat.stopping) this.#stoppingChanged(agent, beat.stopping);
    if (beat.environments !== undefined) this.#environmentsChanged(agent, beat.environments);
    if (beat.services !== undefined) {
      agent.services = encodedServices(beat.services.services);
      this.#recordServices(agent);
    }
    if (beat.capacity !== undefined) this.#capacityChanged(agent, beat.capacity);
    if (beat.hardware === undefined) return;
    this.#gpusChanged(agent, beat.hardware);
    const changed = !sameHardware(fromBinary(HardwareSchema, agent.hardware), beat.hardware);
    agent.hardware = encodedHardware(beat.hardware);
    if (!changed) return;
    const { sql, logger } = this.#options;
    recordHardware(sql, agent.id, agent.hardware).catch((error: unknown) =>
      logger.warn({ agentId: agent.id, reason: messageOf(error) }, 'hardware could not be stored'),
    );
  }

  /** The other replicas read them from the database. */
  #recordServices(agent: LinkedAgent): void {
    const { sql } = this.#options;
    this.#inOrder(agent, 'services', () => recordServices(sql, agent.id, agent.session, agent.services));
  }

  /** One after the other: the newest is to stay. */
  #inOrder(agent: LinkedAgent, what: string, record: () => Promise<void>): void {
    this.#recorded = (this.#recorded ?? Promise.resolve())
      .then(record)
      .catch((error: unknown) =>
        this.#options.logger.warn({ agentId: agent.id, reason: messageOf(error) }, `${what} could not be stored`),
      );
  }

  /** A launcher has come back that isolates in another way than the one before. */
  #isolationChanged(agent: LinkedAgent, level: number): void {
    const { sql, registry, events } = this.#options;
    registry.setIsolation(agent, level);
    this.#inOrder(agent, 'the isolation', () => recordIsolation(sql, agent.id, agent.session, level));
    events.onCapacityChanged();
  }

  /** The other replicas read it from the database. */
  #stoppingChanged(agent: LinkedAgent, stopping: boolean): void {
    const { sql, registry, logger } = this.#options;
    registry.setStopping(agent, stopping);
    recordStopping(sql, agent.id, agent.session, stopping).catch((error: unknown) =>
      logger.warn({ agentId: agent.id, reason: messageOf(error) }, 'that an agent stops could not be stored'),
    );
  }

  #environmentsChanged(agent: LinkedAgent, support: EnvironmentSupport): void {
    const { sql, logger, registry, events } = this.#options;
    registry.setEnvironments(agent, supportOf(support));
    const { environments, unavailableEnvironments } = environmentFacts(support);
    recordEnvironments(sql, agent.id, environments, unavailableEnvironments).catch((error: unknown) =>
      logger.warn({ agentId: agent.id, reason: messageOf(error) }, 'environments could not be stored'),
    );
    events.onCapacityChanged();
  }

  #capacityChanged(agent: LinkedAgent, told: Resources): void {
    const { sql, logger, registry, events } = this.#options;
    registry.setCapacity(agent, capacityOf(told));
    recordCapacity(sql, agent.id, storedCapacity(told)).catch((error: unknown) =>
      logger.warn({ agentId: agent.id, reason: messageOf(error) }, 'a capacity could not be stored'),
    );
    events.onCapacityChanged();
  }

  /** What a card is doing changes with each beat; whether it can be given does not. */
  #gpusChanged(agent: LinkedAgent, hardware: Hardware): void {
    const gpus = gpuInventory(hardware);
    if (isDeepStrictEqual(gpus, agent.gpus)) return;
    const { registry, events } = this.#options;
    registry.setGpus(agent, gpus);
    events.onCapacityChanged();
  }
}

/** What a hello tells, as it is kept of a linked agent. */
export function factsOf(hello: Hello) {
  return {
    ...supportOf(hello.environments),
    capacity: capacityOf(hello.capacity),
    gpus: gpuInventory(hello.hardware),
    hardware: encodedHardware(hello.hardware),
    services: encodedServices(hello.services),
  } satisfies Partial<LinkedAgent>;
}

function supportOf(
  support: EnvironmentSupport | undefined,
): Pick<LinkedAgent, 'environments' | 'unavailableEnvironments'> {
  const { environments, unavailableEnvironments } = environmentFacts(support);
  return { environments: new Set(environments), unavailableEnvironments };
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

function encodedServices(services: ManagedService[]): Uint8Array {
  if (services.length === 0) return NO_BYTES;
  return toBinary(ManagedServicesSchema, create(ManagedServicesSchema, { services }));
}

function encodedHardware(hardware: Hardware | undefined): Uint8Array {
  return hardware === undefined ? NO_BYTES : toBinary(HardwareSchema, hardware);
}

/** Whether two reports name the same hardware; what a card or disk is doing does not count, and is not stored on each beat. */
function sameHardware(a: Hardware, b: Hardware): boolean {
  return equals(HardwareSchema, steady(a), steady(b));
}

function steady(hardware: Hardware): Hardware {
  const copy = clone(HardwareSchema, hardware);
  for (const gpu of copy.gpus) {
    delete gpu.utilizationRatio;
    delete gpu.memoryUsedBytes;
    delete gpu.temperatureCelsius;
    delete gpu.powerWatts;
    gpu.processes = [];
    for (const part of [gpu, ...gpu.migInstances]) {
      // Who has it stands with the executions.
      if (part.state === GpuState.RESERVED) part.state = GpuState.FREE;
      part.executionId = '';
    }
  }
  for (const disk of copy.disks) disk.availableBytes = 0n;
  return copy;
}
