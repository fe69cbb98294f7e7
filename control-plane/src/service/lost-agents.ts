import { type Logger, messageOf } from '@harrier/shared';
import type { AgentRegistry } from '../agent-link/agent-registry.ts';
import { listBusyAgents } from '../db/queries/read-executions.ts';
import type { Sql } from '../db/sql.ts';

/** An agent whose link is gone for so long is lost: long enough for a restart of either side. */
const LOST_AFTER_MS = 30_000;

export interface LostAgentsOptions {
  sql: Sql;
  registry: AgentRegistry;
  logger: Logger;
  agentLost: (agentId: string, reason: string) => Promise<void>;
}

/** Gives agents that lost their link a while to come back, then ends their attempts. */
export class LostAgents {
  readonly #options: LostAgentsOptions;
  readonly #timers = new Map<string, NodeJS.Timeout>();

  constructor(options: LostAgentsOptions) {
    this.#options = options;
  }

  /** At start: agents that have attempts must show themselves. */
  async start(): Promise<void> {
    for (const agentId of await listBusyAgents(this.#options.sql)) this.unlinked(agentId);
  }

  unlinked(agentId: string): void {
    this.linked(agentId);
    const timer = setTimeout(() => void this.#expire(agentId), LOST_AFTER_MS);
    timer.unref();
    this.#timers.set(agentId, timer);
  }

  linked(agentId: string): void {
    clearTimeout(this.#timers.get(agentId));
    this.#timers.delete(agentId);
  }

  stop(): void {
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
  }

  async #expire(agentId: string): Promise<void> {
    this.#timers.delete(agentId);
    const { registry, agentLost, logger } = this.#options;
    if (registry.get(agentId) !== undefined) return;
    try {
      await agentLost(agentId, `the agent was not linked for ${LOST_AFTER_MS / 1000} s`);
    } catch (error) {
      logger.error({ agentId, reason: messageOf(error) }, 'attempts of a lost agent could not be ended; trying again');
      this.unlinked(agentId);
    }
  }
}
