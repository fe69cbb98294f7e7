import type { AgentRegistry } from '../agent-link/agent-registry.ts';
import { type BrakedAgent, listBrakedAgents } from '../db/queries/lost-agents.ts';
import type { Sql } from '../db/sql.ts';

/** What is said of the brake may be so old. */
const CACHE_MS = 1_000;

export interface BrakedAgentsOptions {
  sql: Sql;
  registry: Pick<AgentRegistry, 'get'>;
}

/** Agents whose work is given to nobody else for a while, because most agents have gone at once; whichever replica held it. */
export class BrakedAgents {
  readonly #options: BrakedAgentsOptions;
  #cached: { agents: Promise<Map<string, BrakedAgent>>; untilMs: number } | undefined;

  constructor(options: BrakedAgentsOptions) {
    this.#options = options;
  }

  /** Why an attempt of an agent does not get on, for people; empty when its work is not held. */
  async reason(agentId: string): Promise<string> {
    if (agentId === '' || this.#options.registry.get(agentId) !== undefined) return '';
    const braked = (await this.#agents()).get(agentId);
    if (braked === undefined) return '';
    const { name, brake_end_time: endTime } = braked;
    return `agent ${name} is gone together with most others; its work is kept for it until ${endTime.toISOString()} at most`;
  }

  /** All in one, so that many watchers cost no more than one. */
  #agents(): Promise<Map<string, BrakedAgent>> {
    if (this.#cached === undefined || this.#cached.untilMs <= performance.now()) {
      const agents = listBrakedAgents(this.#options.sql).then((rows) => new Map(rows.map((row) => [row.id, row])));
      const cached = { agents, untilMs: performance.now() + CACHE_MS };
      this.#cached = cached;
      agents.catch(() => {
        if (this.#cached === cached) this.#cached = undefined;
      });
    }
    return this.#cached.agents;
  }
}
