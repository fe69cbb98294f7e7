import { ONE_SLOT, type Reservation, type Taken, TakenResources } from './reservation.ts';

/** An execution that an agent has, or is about to have. */
export interface SlotUse {
  reservation: Reservation;
  /** Whose share of the fleet it is counted to: tenant and task class. */
  share: string;
  /** When it is over at the latest, in milliseconds of `performance.now()`. */
  endMs: number;
}

interface Entry extends SlotUse {
  /** The database says that it is the agent's; else it was chosen, and that is not known to be in the database. */
  held: boolean;
}

interface AgentUse {
  entries: Map<string, Entry>;
  taken: TakenResources;
}

const NOBODY: SlotUse = { reservation: ONE_SLOT, share: '', endMs: Number.POSITIVE_INFINITY };

/**
 * What executions take of the agents, by id: taking or freeing twice is as good as once, and a link that is opened anew in the
 * middle of a reservation loses none. An entry belongs to the agent, not to its link.
 */
export class AgentSlots {
  readonly #agents = new Map<string, AgentUse>();
  readonly #shares = new Map<string, number>();

  /** Executions that the agent has. */
  count(agentId: string): number {
    return this.#agents.get(agentId)?.entries.size ?? 0;
  }

  /** What they take altogether; undefined for nothing. The object goes on to change. */
  taken(agentId: string): Taken | undefined {
    return this.#agents.get(agentId)?.taken;
  }

  uses(agentId: string): Iterable<SlotUse> {
    return this.#agents.get(agentId)?.entries.values() ?? [];
  }

  /** Executions of a share, over all agents. */
  countOf(share: string): number {
    return this.#shares.get(share) ?? 0;
  }

  /** Takes what an execution needs before the database is asked. */
  reserve(agentId: string, executionId: string, use: SlotUse = NOBODY): void {
    this.#put(agentId, executionId, { ...use, held: false });
  }

  /** The database has given the execution to the agent; a reservation of it is confirmed. */
  hold(agentId: string, executionId: string, use: SlotUse = NOBODY): void {
    const known = this.#agents.get(agentId)?.entries.get(executionId);
    if (known === undefined) this.#put(agentId, executionId, { ...use, held: true });
    else known.held = true;
  }

  free(agentId: string, executionId: string): void {
    const agent = this.#agents.get(agentId);
    const entry = agent?.entries.get(executionId);
    if (agent === undefined || entry === undefined) return;
    agent.entries.delete(executionId);
    agent.taken.subtract(executionId, entry.reservation);
    this.#countShare(entry.share, -1);
    if (agent.entries.size === 0) this.#agents.delete(agentId);
  }

  /** Forgets what the agent held: the database will tell again. Reservations stay, since it may not know of them yet. */
  forgetHeld(agentId: string): void {
    const entries = this.#agents.get(agentId)?.entries ?? [];
    for (const [executionId, { held }] of entries) if (held) this.free(agentId, executionId);
  }

  #put(agentId: string, executionId: string, entry: Entry): void {
    this.free(agentId, executionId);
    let agent = this.#agents.get(agentId);
    if (agent === undefined) {
      agent = { entries: new Map(), taken: new TakenResources() };
      this.#agents.set(agentId, agent);
    }
    agent.entries.set(executionId, entry);
    agent.taken.add(executionId, entry.reservation);
    this.#countShare(entry.share, 1);
  }

  #countShare(share: string, by: 1 | -1): void {
    const count = (this.#shares.get(share) ?? 0) + by;
    if (count > 0) this.#shares.set(share, count);
    else this.#shares.delete(share);
  }
}
