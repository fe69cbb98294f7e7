import type { Hardware, HostLoad } from '@harrier/shared/gen/agent';
import type { ServerMessage } from '@harrier/shared/gen/link';
import type { Candidate } from './candidate.ts';

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
  active: number;
  draining: boolean;
  /** The agent said that it is stopping. */
  stopping: boolean;
  drainRequested: boolean;
  instanceId: string;
  isolation: number;
  version: string;
  hardware: Hardware | undefined;
  load: HostLoad | undefined;
  lastSeenTime: Date;
  channel: AgentChannel;
}

/** The agents that are linked to this replica, and the slots that are taken on them. */
export class AgentRegistry {
  readonly #agents = new Map<string, LinkedAgent>();

  get(agentId: string): LinkedAgent | undefined {
    return this.#agents.get(agentId);
  }

  candidates(): Iterable<LinkedAgent> {
    return this.#agents.values();
  }

  add(agent: LinkedAgent): void {
    this.#agents.set(agent.id, agent);
  }

  /** Removes an agent if this is still its link. @returns whether it was. */
  remove(agent: LinkedAgent): boolean {
    return this.#agents.get(agent.id) === agent && this.#agents.delete(agent.id);
  }

  takeSlot(agentId: string): void {
    const agent = this.#agents.get(agentId);
    if (agent !== undefined) agent.active++;
  }

  freeSlot(agentId: string): void {
    const agent = this.#agents.get(agentId);
    if (agent !== undefined && agent.active > 0) agent.active--;
  }

  setDraining(agentId: string, drainRequested: boolean): void {
    const agent = this.#agents.get(agentId);
    if (agent === undefined) return;
    agent.drainRequested = drainRequested;
    agent.draining = drainRequested || agent.stopping;
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
}
