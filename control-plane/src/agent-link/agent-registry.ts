import type { HostLoad } from '@harrier/shared/gen/agent';
import type { ServerMessage } from '@harrier/shared/gen/link';
import { AgentSlots, type SlotUse } from './agent-slots.ts';
import type { Candidate } from './candidate.ts';
import type { Capacity } from './capacity.ts';
import type { GpuInventory } from './gpu-inventory.ts';
import type { Taken } from './reservation.ts';

/** The way to an agent that is linked to this replica. */
export interface AgentChannel {
  /** Queues a message; dropped when the link is gone, which is told by the registry's owner anyway. */
  send(message: ServerMessage): void;
  /** As `send`, for what nobody waits for. */
  sendLater(message: ServerMessage): void;
  /** Closes the link after a goodbye. */
  close(code: number, message: string): void;
}

/** An agent that is linked to this replica. */
export interface LinkedAgent extends Candidate {
  labels: Record<string, string>;
  slots: number;
  /** Kept by the registry, as `taken` and `executions` are. */
  active: number;
  taken: Taken | undefined;
  /** All that it has, those that take no slot too. */
  executions: number;
  draining: boolean;
  /** The agent said that it is stopping. */
  stopping: boolean;
  drainRequested: boolean;
  instanceId: string;
  /** Number of this link among those of the agent. */
  session: number;
  isolation: number;
  version: string;
  /** harrier.v1.Hardware, encoded: as a message it takes some KiB more, and few ask. */
  hardware: Uint8Array;
  load: HostLoad | undefined;
  /** harrier.v1.ManagedServices, encoded. */
  services: Uint8Array;
  /** Milliseconds since 1970. */
  lastSeenMs: number;
  channel: AgentChannel;
}

/** Follows the agents that are linked: told at once, so that it is never behind. */
export interface AgentObserver {
  /** The agent came, or what placement depends on has changed. */
  set(agent: LinkedAgent): void;
  delete(agentId: string): void;
}

/** The agents that are linked to this replica, and the slots that are taken on them. */
export class AgentRegistry {
  readonly #agents = new Map<string, LinkedAgent>();
  readonly #slots = new AgentSlots();
  readonly #observer: AgentObserver;

  constructor(observer: AgentObserver) {
    this.#observer = observer;
  }

  get(agentId: string): LinkedAgent | undefined {
    return this.#agents.get(agentId);
  }

  get size(): number {
    return this.#agents.size;
  }

  candidates(): Iterable<LinkedAgent> {
    return this.#agents.values();
  }

  add(agent: LinkedAgent): void {
    this.#agents.set(agent.id, agent);
    this.#count(agent.id);
  }

  /** Removes an agent if this is still its link. @returns whether it was. */
  remove(agent: LinkedAgent): boolean {
    if (this.#agents.get(agent.id) !== agent) return false;
    this.#observer.delete(agent.id);
    return this.#agents.delete(agent.id);
  }

  /**
   * Takes what an execution needs that the database is about to be told of. The agent need not be linked.
   * @param use default: a slot
   */
  reserveSlot(agentId: string, executionId: string, use?: SlotUse): void {
    this.#slots.reserve(agentId, executionId, use);
    this.#count(agentId);
  }

  /** The database says that the execution is the agent's: it takes what it takes until `freeSlot`, reserved before or not. */
  holdSlot(agentId: string, executionId: string, use?: SlotUse): void {
    this.#slots.hold(agentId, executionId, use);
    this.#count(agentId);
  }

  /** What executions take of an agent, one by one. */
  uses(agentId: string): Iterable<SlotUse> {
    return this.#slots.uses(agentId);
  }

  /** How many executions of a share the agents have. */
  countOf(share: string): number {
    return this.#slots.countOf(share);
  }

  /** Safe to call for an execution that has nothing (any more). */
  freeSlot(agentId: string, executionId: string): void {
    this.#slots.free(agentId, executionId);
    this.#count(agentId);
  }

  /** What the agent holds is about to be told anew, with `holdSlot`; reservations stay. */
  forgetHeldSlots(agentId: string): void {
    this.#slots.forgetHeld(agentId);
    this.#count(agentId);
  }

  setDraining(agentId: string, drainRequested: boolean): void {
    const agent = this.#agents.get(agentId);
    if (agent === undefined) return;
    agent.drainRequested = drainRequested;
    this.#drain(agent);
  }

  setStopping(agent: LinkedAgent, stopping: boolean): void {
    agent.stopping = stopping;
    this.#drain(agent);
  }

  /** What the agent can prepare has changed. */
  setEnvironments(agent: LinkedAgent, support: Pick<LinkedAgent, 'environments' | 'unavailableEnvironments'>): void {
    Object.assign(agent, support);
    this.#changed(agent);
  }

  setIsolation(agent: LinkedAgent, level: number): void {
    agent.isolation = level;
    this.#changed(agent);
  }

  setCapacity(agent: LinkedAgent, capacity: Capacity): void {
    agent.capacity = capacity;
    this.#changed(agent);
  }

  /** What the agent says of its cards has changed. */
  setGpus(agent: LinkedAgent, gpus: GpuInventory | undefined): void {
    agent.gpus = gpus;
    this.#changed(agent);
  }

  /** For what nobody waits for. */
  sendLater(agentId: string, message: ServerMessage): void {
    this.#agents.get(agentId)?.channel.sendLater(message);
  }

  /** @returns whether the agent is linked here. */
  send(agentId: string, message: ServerMessage): boolean {
    const agent = this.#agents.get(agentId);
    agent?.channel.send(message);
    return agent !== undefined;
  }

  #count(agentId: string): void {
    const agent = this.#agents.get(agentId);
    if (agent === undefined) return;
    const taken = this.#slots.taken(agentId);
    agent.taken = taken;
    agent.active = taken?.slots ?? 0;
    agent.executions = this.#slots.count(agentId);
    this.#changed(agent);
  }

  #drain(agent: LinkedAgent): void {
    const draining = agent.drainRequested || agent.stopping;
    if (agent.draining === draining) return;
    agent.draining = draining;
    this.#changed(agent);
  }

  #changed(agent: LinkedAgent): void {
    if (this.#agents.get(agent.id) === agent) this.#observer.set(agent);
  }
}
