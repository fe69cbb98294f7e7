/** Why an agent has sent an execution back, and for how long it is not asked again. */
export interface Refusal {
  agentId: string;
  /** The agent's words. */
  reason: string;
  /** The agent has no room for the environment: it may fail for that when nobody else has any. */
  noRoom: boolean;
  forMs: number;
}

/** Agents that have sent an execution back a moment ago: it goes to others meanwhile, however idle these are. */
export class Refusals {
  /** Their words by their ids. */
  readonly all = new Map<string, string>();
  /** Of them, those without room for the environment. */
  readonly withoutRoom = new Map<string, string>();
  readonly #timers = new Map<string, NodeJS.Timeout>();

  /**
   * A refusal takes the place of the agent's former one.
   * @param onOver the agent may be asked again
   */
  add({ agentId, reason, noRoom, forMs }: Refusal, onOver: () => void): void {
    clearTimeout(this.#timers.get(agentId));
    this.all.set(agentId, reason);
    if (noRoom) this.withoutRoom.set(agentId, reason);
    else this.withoutRoom.delete(agentId);
    const timer = setTimeout(() => {
      this.#timers.delete(agentId);
      this.all.delete(agentId);
      this.withoutRoom.delete(agentId);
      onOver();
    }, forMs);
    this.#timers.set(agentId, timer.unref());
  }
}
