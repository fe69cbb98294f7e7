/** Keys that are remembered: those used longest ago are forgotten first. */
const MAX_KEYS = 4_096;
/** Agents of one key: enough to choose from. */
const MAX_AGENTS = 8;
const NONE: readonly string[] = [];

/**
 * Which agents ran something lately, and so hold its environment or a warm interpreter. It need not be true: an agent may have
 * evicted it since, and builds it anew then.
 */
export class WarmAgents {
  readonly #agents = new Map<string, string[]>();

  /** Those that were named last come first. */
  of(key: string): readonly string[] {
    return this.#agents.get(key) ?? NONE;
  }

  add(key: string, agentId: string): void {
    const known = this.#agents.get(key);
    if (known?.[0] === agentId) return;
    this.#agents.delete(key);
    const others = known?.filter((id) => id !== agentId) ?? [];
    this.#agents.set(key, [agentId, ...others].slice(0, MAX_AGENTS));
    if (this.#agents.size <= MAX_KEYS) return;
    for (const oldest of this.#agents.keys()) {
      this.#agents.delete(oldest);
      return;
    }
  }
}
