/** `reserved`: chosen, and not yet known to be in the database. `held`: the database says that it is the agent's. */
type Use = 'reserved' | 'held';

/**
 * Which executions take the slots of the agents, by id: taking or freeing a slot twice is as good as once, and a link that
 * is opened anew in the middle of a reservation loses none. An entry belongs to the agent, not to its link.
 */
export class AgentSlots {
  readonly #uses = new Map<string, Map<string, Use>>();

  /** Slots that are taken. */
  count(agentId: string): number {
    return this.#uses.get(agentId)?.size ?? 0;
  }

  /** Takes a slot before the database is asked. */
  reserve(agentId: string, executionId: string): void {
    this.#usesOf(agentId).set(executionId, 'reserved');
  }

  /** The database has given the execution to the agent; a reservation of it is confirmed. */
  hold(agentId: string, executionId: string): void {
    this.#usesOf(agentId).set(executionId, 'held');
  }

  free(agentId: string, executionId: string): void {
    const uses = this.#uses.get(agentId);
    if (uses?.delete(executionId) && uses.size === 0) this.#uses.delete(agentId);
  }

  /** Forgets what the agent held: the database will tell again. Reservations stay, since it may not know of them yet. */
  forgetHeld(agentId: string): void {
    const uses = this.#uses.get(agentId);
    if (uses === undefined) return;
    for (const [executionId, use] of uses) if (use === 'held') uses.delete(executionId);
    if (uses.size === 0) this.#uses.delete(agentId);
  }

  #usesOf(agentId: string): Map<string, Use> {
    let uses = this.#uses.get(agentId);
    if (uses === undefined) {
      uses = new Map();
      this.#uses.set(agentId, uses);
    }
    return uses;
  }
}
