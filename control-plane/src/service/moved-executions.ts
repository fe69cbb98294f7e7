import { type Logger, messageOf } from '@harrier/shared';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import type { AgentRegistry } from '../agent-link/agent-registry.ts';
import { findMovedExecutions, type MovedExecution } from '../db/queries/find-moved-executions.ts';
import type { Sql } from '../db/sql.ts';
import type { ExecutionTracker } from './execution-tracker.ts';
import type { StateChange, TrackedExecution } from './tracked-execution.ts';

/** As often as the queue is looked at for what other replicas have put there. Most of it is told before. */
const LOOK_MS = 2_000;
/** Executions asked for at once; the others have their turn at the next looks. */
const MAX_ASKED = 2_000;

export interface MovedExecutionsOptions {
  sql: Sql;
  /** This replica. */
  replicaId: string;
  registry: AgentRegistry;
  tracker: ExecutionTracker;
  logger: Logger;
}

/**
 * Finds executions that another replica has taken over or ended: what waits in the queue is claimed by any replica, and an
 * agent may come back at another one. The others tell, but nothing rests on it: this replica looks in the database, too, and
 * releases them; whoever waits for one of them here then follows it there.
 */
export class MovedExecutions {
  readonly #options: MovedExecutionsOptions;
  readonly #timer: NodeJS.Timeout;
  #looking: Promise<void> | undefined;
  #again = false;
  #turn: Iterator<TrackedExecution> | undefined;

  constructor(options: MovedExecutionsOptions) {
    this.#options = options;
    this.#timer = setInterval(() => this.look(), LOOK_MS);
    this.#timer.unref();
  }

  /** Looks out of turn: something has moved. */
  look(): void {
    if (this.#looking !== undefined) this.#again = true;
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined;
      if (this.#again) {
        this.#again = false;
        this.look();
      }
    });
  }

  /** Resolves when no look is under way any more. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#again = false;
    await this.#looking;
  }

  async #look(): Promise<void> {
    const { sql, replicaId, registry, tracker, logger } = this.#options;
    const asked = new Map(this.#nextSuspects().map((tracked) => [tracked.id, { tracked, at: tracked.current }]));
    if (asked.size === 0) return;
    try {
      const believed = [...asked.values()].map(({ tracked, at }) => ({
        id: tracked.id,
        tenant_id: tracked.resolved.tenantId,
        attempt: at.attempt,
        agent_id: at.agentId === '' ? null : at.agentId,
      }));
      for (const moved of await findMovedExecutions(sql, believed, replicaId)) {
        const { tracked, at } = asked.get(moved.id) ?? {};
        // What has moved here too since it was asked for is told by whoever moved it.
        if (tracked === undefined || tracked.current !== at) continue;
        if (tracked.ending && !(hasRefusedEnd(tracked) && isOver(moved, at))) continue;
        // A claim of this replica that is about to be told.
        if (!moved.ended && moved.agent_id !== null && registry.get(moved.agent_id) !== undefined) continue;
        tracker.release(tracked);
      }
    } catch (error) {
      logger.warn({ reason: messageOf(error) }, 'executions of other replicas could not be looked for');
    }
  }

  /** What another replica may have moved, and this one would not be told. */
  #nextSuspects(): TrackedExecution[] {
    const { registry, tracker } = this.#options;
    this.#turn ??= tracker.all();
    const suspects: TrackedExecution[] = [];
    while (suspects.length < MAX_ASKED) {
      const { value: tracked, done } = this.#turn.next();
      if (done === true) {
        this.#turn = undefined;
        break;
      }
      const { state, agentId } = tracked.current;
      if (state === State.STATE_UNSPECIFIED || (tracked.ending && !hasRefusedEnd(tracked))) continue;
      if (state === State.PENDING || hasRefusedEnd(tracked) || registry.get(agentId) === undefined)
        suspects.push(tracked);
    }
    return suspects;
  }
}

/** Others may have ended the attempt long before its end is tried here again. */
function hasRefusedEnd({ ending, endRefused }: TrackedExecution): boolean {
  return ending && endRefused !== undefined;
}

/**
 * Whether no end of the attempt can be stored any more. Until then a refused one is kept, also when its agent is linked elsewhere:
 * this replica alone may know it, and while it does, it does not take the attempt for lost.
 */
function isOver(moved: MovedExecution, { attempt, agentId }: StateChange): boolean {
  return moved.ended || moved.attempt !== attempt || moved.agent_id !== agentId;
}
