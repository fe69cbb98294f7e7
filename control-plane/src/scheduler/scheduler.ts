import { failpoint, type Logger, messageOf } from '@harrier/shared';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import type { AgentRegistry } from '../agent-link/agent-registry.ts';
import type { Candidate } from '../agent-link/candidate.ts';
import {
  type Claim,
  type ClaimedExecution,
  claimExecutions,
  type QueueCursor,
  type WaitingExecution,
} from '../db/queries/claim-executions.ts';
import { nextDueTime } from '../db/queries/queue-state.ts';
import type { Sql } from '../db/sql.ts';
import type { AgentIndex } from './agent-index.ts';
import { Explanations } from './explanations.ts';
import { canBePlaced, explainWaiting, type Requirement } from './place.ts';

/** Entries looked at in one transaction. */
const PAGE_ENTRIES = 250;
/** Pages in one pass: first those at the head of the queue, then as many of the others as go with them, in turn. */
const HEAD_PAGES = 4;
const PAGES_IN_A_PASS = 16;
/** Finds what another replica queued or a lost wake-up left; wake-ups do the work otherwise. */
const POLL_MS = 2_000;
/** Of so many agents, what is said of a waiting execution may be a moment old. */
const FLEET_AGENTS = 100;

export interface SchedulerOptions {
  sql: Sql;
  registry: AgentRegistry;
  /** Of the agents in the registry. */
  index: AgentIndex;
  logger: Logger;
  /** What a waiting execution asks for. */
  requirementOf: (waiting: WaitingExecution) => Promise<Requirement>;
  /** A pass could not place what this replica has queued: others may. */
  onLeft: () => void;
  /** The claim is committed: the slot on the agent is taken, the assignment is to be sent. */
  onClaimed: (claimed: ClaimedExecution) => Promise<void>;
}

/**
 * Gives executions to agents. `reserve` serves a new one at once from memory; what found no room waits in the database and
 * is claimed by a pass over the queue, which runs when room appears, when a retry is due, and now and then.
 */
export class Scheduler {
  readonly #options: SchedulerOptions;
  #running = false;
  #again = false;
  #stopped = false;
  #timer: NodeJS.Timeout | undefined;
  readonly #explanations = new Explanations();
  #pass: Promise<void> = Promise.resolve();
  /** What the next pass leaves is to be told to the other replicas. Not what they have told: that would never end. */
  #tells = false;

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#arm(POLL_MS);
  }

  /**
   * Takes a slot for a new execution, or answers undefined when it must wait. Nothing overtakes: while a pass over the queue
   * is due, new ones queue up too.
   */
  reserve(requirement: Requirement, executionId: string): string | undefined {
    if (this.#running || this.#again) return undefined;
    const candidate = this.#options.index.place(requirement);
    if (candidate === undefined) return undefined;
    this.#options.registry.reserveSlot(candidate.id, executionId);
    return candidate.id;
  }

  /** Gives the slot of an execution back; somebody may wait for it. Safe to call twice. */
  release(agentId: string, executionId: string): void {
    this.#options.registry.freeSlot(agentId, executionId);
    if (this.#waiting) this.wake();
  }

  /** @param elsewhere agents of other replicas */
  explain(requirement: Requirement, elsewhere: Iterable<Candidate> = []): string {
    const { registry } = this.#options;
    const explain = () => explainWaiting(requirement, [...registry.candidates(), ...elsewhere]);
    return registry.size < FLEET_AGENTS ? explain() : this.#explanations.of(requirement, explain);
  }

  /** As `explain`, when none of the linked agents can take it, also not later; undefined when one can. */
  whyNobody(requirement: Requirement): string | undefined {
    return canBePlaced(requirement, this.#options.registry.candidates()) ? undefined : this.explain(requirement);
  }

  /** This replica has put something into the queue. */
  queued(): void {
    if (this.#stopped) this.#options.onLeft();
    this.#tells = true;
    this.wake();
  }

  /** Another replica could not place what is in the queue. */
  othersQueued(): void {
    this.#waiting = true;
    if (this.#options.index.hasRoom) this.wake();
  }

  /** Room appeared. */
  wake(): void {
    if (this.#stopped) return;
    this.#again = true;
    if (this.#running) return;
    this.#running = true;
    this.#pass = this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#pass;
  }

  /** The last pass left entries in the queue, or may have. */
  #waiting = true;
  /** Up to here the entries behind the head have had their turn; undefined: none of them. */
  #turn: QueueCursor | undefined;

  async #run(): Promise<void> {
    let nextMs = POLL_MS;
    let isDue = false;
    try {
      while (this.#again && !this.#stopped) {
        this.#again = false;
        // Asked for before the pass: an entry that becomes due meanwhile is claimed by it or by the timer, never missed.
        const askedMs = performance.now();
        const due = await nextDueTime(this.#options.sql);
        const tells = this.#tells;
        this.#tells = false;
        this.#waiting = await this.#claimAll();
        if (tells && this.#waiting) this.#options.onLeft();
        const passedMs = performance.now() - askedMs;
        nextMs = due === undefined ? POLL_MS : Math.min(due.inMs + 1 - passedMs, POLL_MS);
        isDue = nextMs < POLL_MS;
      }
    } catch (error) {
      this.#options.logger.error({ err: error }, `the queue could not be read: ${messageOf(error)}`);
      this.#again = false;
    } finally {
      this.#running = false;
    }
    if (this.#again) this.wake();
    else this.#arm(Math.max(1, nextMs), isDue);
  }

  #arm(ms: number, isDue = false): void {
    clearTimeout(this.#timer);
    if (this.#stopped) return;
    // What becomes due is as good as queued then.
    this.#timer = setTimeout(() => (isDue ? this.queued() : this.wake()), ms);
    this.#timer.unref();
  }

  /**
   * Looks at the head of the queue, and goes on behind it where the last pass had to stop: entries that cannot be placed, of
   * whatever number, keep none of the others waiting for more than a few passes.
   * @returns whether entries may be left
   */
  async #claimAll(): Promise<boolean> {
    let after: QueueCursor | undefined;
    let left = false;
    for (let page = 0; page < PAGES_IN_A_PASS; page++) {
      if (page === HEAD_PAGES && after !== undefined && this.#turn !== undefined && isBefore(after, this.#turn)) {
        after = this.#turn;
        left = true;
      }
      const { waiting, claimed } = await this.#claimPage(after);
      left ||= claimed.length < waiting.length;
      const last = waiting.at(-1);
      if (last === undefined || waiting.length < PAGE_ENTRIES) {
        this.#turn = undefined;
        return left;
      }
      if (!this.#options.index.hasRoom) return true;
      after = { priority: last.priority, id: last.id };
      if (page >= HEAD_PAGES) this.#turn = after;
    }
    return true;
  }

  async #claimPage(after: QueueCursor | undefined): Promise<{ waiting: WaitingExecution[]; claimed: unknown[] }> {
    const { sql, registry, index, logger, onClaimed } = this.#options;
    const taken: Claim[] = [];
    let page: Awaited<ReturnType<typeof claimExecutions>>;
    try {
      page = await claimExecutions(sql, { assigned: State.ASSIGNED, limit: PAGE_ENTRIES, after }, async (waiting) => {
        for (const entry of waiting) {
          if (!index.hasRoom) break;
          const requirement = await this.#requirementOf(entry);
          const candidate = requirement === undefined ? undefined : index.place(requirement);
          if (candidate === undefined) continue;
          registry.reserveSlot(candidate.id, entry.id);
          taken.push({ id: entry.id, agentId: candidate.id });
        }
        if (taken.length > 0) failpoint('claim-before-commit');
        return taken;
      });
      if (taken.length > 0) failpoint('claim-committed');
    } catch (error) {
      for (const { id, agentId } of taken) registry.freeSlot(agentId, id);
      throw error;
    }
    const ids = new Set(page.claimed.map(({ id }) => id));
    for (const { id, agentId } of taken) {
      if (ids.has(id)) continue;
      // Another replica was first: there is room for what comes behind.
      registry.freeSlot(agentId, id);
      this.#again = true;
    }
    for (const claimed of page.claimed) {
      try {
        await onClaimed(claimed);
      } catch (error) {
        // The sweep for attempts that nobody follows puts it back.
        logger.error({ err: error, executionId: claimed.id }, 'a claimed execution could not be assigned');
        registry.freeSlot(claimed.agentId, claimed.id);
      }
    }
    return page;
  }

  /** Undefined for an entry that cannot be read: it stays queued, and must not hold the others up. */
  async #requirementOf(entry: WaitingExecution): Promise<Requirement | undefined> {
    try {
      return await this.#options.requirementOf(entry);
    } catch (error) {
      this.#options.logger.error({ err: error, executionId: entry.id }, 'a queued execution cannot be read');
      return undefined;
    }
  }
}

/** In the order of the queue. */
function isBefore(a: QueueCursor, b: QueueCursor): boolean {
  return a.priority === b.priority ? a.id < b.id : a.priority > b.priority;
}
