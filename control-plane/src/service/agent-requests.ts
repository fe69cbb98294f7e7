import { create } from '@bufbuild/protobuf';
import { type Logger, messageOf } from '@harrier/shared';
import { Goodbye_Code as GoodbyeCode, ServerMessageSchema } from '@harrier/shared/gen/link';
import type { AgentRegistry } from '../agent-link/agent-registry.ts';
import { findChangedAgents } from '../db/queries/agents.ts';
import { listCancelRequests } from '../db/queries/cancel-requests.ts';
import type { Sql } from '../db/sql.ts';
import type { ExecutionTracker } from './execution-tracker.ts';

/** Other replicas tell of requests; this is for those that were not heard. */
const LOOK_MS = 5_000;

export interface AgentRequestsOptions {
  sql: Sql;
  registry: AgentRegistry;
  tracker: ExecutionTracker;
  logger: Logger;
  /** Whether there is another replica that could have been asked. */
  alone: () => boolean;
  /** The agent has a newer link elsewhere. */
  closeOlder: (agentId: string, session: number) => void;
  capacityChanged: () => void;
}

/**
 * What callers have asked another replica for and concerns agents that are linked here: drains, deletions, cancellations;
 * and links that agents have opened elsewhere. The database has them all.
 */
export class AgentRequests {
  readonly #options: AgentRequestsOptions;
  readonly #timer: NodeJS.Timeout;
  #looking: Promise<void> = Promise.resolve();

  constructor(options: AgentRequestsOptions) {
    this.#options = options;
    this.#timer = setInterval(() => {
      if (!options.alone()) this.look();
    }, LOOK_MS);
    this.#timer.unref();
  }

  /** Looks now: something was asked for. */
  look(): void {
    this.#looking = this.#looking
      .then(() => this.#look())
      .catch((error: unknown) => {
        this.#options.logger.warn({ reason: messageOf(error) }, 'requests for agents could not be looked for');
      });
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#looking;
  }

  async #look(): Promise<void> {
    const { sql, registry, tracker, closeOlder, capacityChanged } = this.#options;
    const links = [...registry.candidates()].map(({ id, session, drainRequested }) => ({
      id,
      session,
      drain_requested: drainRequested,
    }));
    if (links.length === 0) return;
    for (const [id, row] of await findChangedAgents(sql, links)) {
      if (row === null) registry.get(id)?.channel.close(GoodbyeCode.REVOKED, 'the agent was deleted');
      else {
        closeOlder(id, row.session);
        const draining = row.drain_requested;
        registry.setDraining(id, draining);
        registry.send(id, create(ServerMessageSchema, { message: { case: 'drain', value: { draining } } }));
        capacityChanged();
      }
    }
    const asked = await listCancelRequests(
      sql,
      links.map(({ id }) => id),
    );
    for (const { id, cancel_reason: reason } of asked) {
      const tracked = tracker.get(id);
      if (tracked !== undefined && tracked.cancelReason === undefined) tracker.requestCancel(tracked, reason);
    }
  }
}
