import { failpoint, type Logger, messageOf } from '@harrier/shared';
import { WaitingConstraint_Kind as Kind, Execution_State as State } from '@harrier/shared/gen/execution';
import type { AgentRegistry } from '../agent-link/agent-registry.ts';
import type { Candidate } from '../agent-link/candidate.ts';
import { ONE_SLOT, type Reservation } from '../agent-link/reservation.ts';
import {
  type Assigned,
  assignClaims,
  type Claim,
  type ClaimedExecution,
  type LaneKey,
  type QueueCursor,
  readLane,
  readLanes,
  stillWaiting,
  type WaitingExecution,
} from '../db/queries/claim-executions.ts';
import { assignLimitedClaims } from '../db/queries/claim-limited.ts';
import { nextDueTime } from '../db/queries/queue-state.ts';
import type { Sql } from '../db/sql.ts';
import type { AgentIndex } from './agent-index.ts';
import { Backfill } from './backfill.ts';
import { Explanations } from './explanations.ts';
import { FairTurns } from './fair-turns.ts';
import { chooseGpus } from './gpu-choice.ts';
import { canBePlaced, explainWaiting, type WaitingConstraint, waitingConstraints } from './place.ts';
import { claimOf, type Decision, nameOf, QueuePass } from './queue-pass.ts';
import { type Requirement, reservationOf, shareOf, slotUse } from './requirement.ts';

/** Entries that are claimed by one statement. */
const PAGE_ENTRIES = 250;
/** Claims in one pass: others have their turn then, and what has come meanwhile is seen. */
const PAGES_IN_A_PASS = 16;
/** Lanes that one pass looks at; more of them have their turn in the next passes. */
const MAX_LANES = 500;
/** Finds what another replica queued or a lost wake-up left; wake-ups do the work otherwise. */
const POLL_MS = 2_000;
/** Of so many agents, what is said of a waiting execution may be a moment old. */
const FLEET_AGENTS = 100;

/** Where an execution goes, and what it takes there. */
export interface Placement {
  agentId: string;
  reservation: Reservation;
}

/** How many executions of a tenant may be under way: any number, so many, or not known yet. */
export type Quota = number | 'none' | 'unknown';

export interface SchedulerOptions {
  sql: Sql;
  registry: AgentRegistry;
  /** Of the agents in the registry. */
  index: AgentIndex;
  logger: Logger;
  /** What a waiting execution asks for. */
  requirementOf: (waiting: WaitingExecution) => Promise<Requirement>;
  /** An agent was looked for in memory; `placed`: and found. */
  onLooked: (placed: boolean, seconds: number) => void;
  quotaOf: (tenantId: string) => Quota;
  /** Of tenants that have none of their own; 0: any number. */
  defaultQuota: number;
  /** Of a tenant beside others, and of a task class beside others of its tenant; greater than 0. */
  tenantWeight: (tenantId: string) => number;
  classWeight: (taskClass: string) => number;
  /** A pass could not place what this replica has queued: others may. */
  onLeft: () => void;
  /** The claim is committed: what it takes of the agent is taken, the assignment is to be sent. */
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
  readonly #backfill: Backfill;
  readonly #turns: FairTurns;
  /** What the next pass leaves is to be told to the other replicas. Not what they have told: that would never end. */
  #tells = false;

  constructor(options: SchedulerOptions) {
    this.#options = options;
    const { registry, index, tenantWeight, classWeight } = options;
    this.#backfill = new Backfill({ registry, index });
    this.#turns = new FairTurns({
      underWay: (tenantId, taskClass) => registry.countOf(shareOf({ tenantId, taskClass })),
      tenantWeight,
      classWeight,
    });
    this.#arm(POLL_MS);
  }

  /**
   * Takes what a new execution needs, or answers undefined when it must wait. Nothing overtakes: while a pass over the queue is
   * due, new ones queue up too. What is limited in number always does: the database counts.
   */
  reserve(requirement: Requirement, executionId: string): Placement | undefined {
    if (this.#running || this.#again || requirement.limit !== undefined) return undefined;
    const { index, registry, quotaOf } = this.#options;
    if (quotaOf(requirement.tenantId) !== 'none') return undefined;
    const candidate = this.#place(requirement, executionId);
    if (candidate === undefined) return undefined;
    const { demand } = requirement;
    const reservation = demand === undefined ? ONE_SLOT : reservationOf(demand, chooseGpus(candidate, demand) ?? []);
    registry.reserveSlot(candidate.id, executionId, slotUse(requirement, reservation, performance.now()));
    index.placed(requirement, candidate.id);
    this.#backfill.decided();
    return { agentId: candidate.id, reservation };
  }

  /** Gives what an execution took back; somebody may wait for it. Safe to call twice. */
  release(agentId: string, executionId: string): void {
    this.#options.registry.freeSlot(agentId, executionId);
    if (this.#waiting) this.wake();
  }

  /** An execution is over, and the database knows: others that share a limit with it may go, at any replica. */
  ended({ tenantId, limit }: Requirement): void {
    if (limit === undefined && this.#options.quotaOf(tenantId) === 'none') return;
    this.#limitsMoved = true;
    this.#options.onLeft();
    this.wake();
  }

  /**
   * What keeps an execution from each agent, as far as agents tell.
   * @param elsewhere agents of other replicas
   */
  constraints(requirement: Requirement, executionId: string, elsewhere: Iterable<Candidate> = []): WaitingConstraint[] {
    const { registry } = this.#options;
    return waitingConstraints(requirement, [...registry.candidates(), ...elsewhere]).map((constraint) => {
      if (constraint.kind !== Kind.NONE) return constraint;
      const other = this.#backfill.keptFor(constraint.agentId);
      if (other === undefined || other === executionId) return constraint;
      return { ...constraint, kind: Kind.TURN, message: `what is free is kept for ${other}, which waits for longer` };
    });
  }

  /** The same in a sentence. */
  explain(requirement: Requirement, executionId: string, elsewhere: Iterable<Candidate> = []): string {
    const explain = () => explainWaiting(this.constraints(requirement, executionId, elsewhere));
    return this.#options.registry.size < FLEET_AGENTS ? explain() : this.#explanations.of(requirement, explain);
  }

  /** As `explain`, when none of the linked agents can take it, also not later; undefined when one can. */
  whyNobody(requirement: Requirement): string | undefined {
    const { registry } = this.#options;
    return canBePlaced(requirement, registry.candidates()) ? undefined : this.explain(requirement, '');
  }

  /** This replica has put something into the queue. */
  queued(): void {
    if (this.#stopped) this.#options.onLeft();
    this.#tells = true;
    this.#limitsMoved = true;
    this.wake();
  }

  /** Another replica could not place what is in the queue. */
  othersQueued(): void {
    this.#waiting = true;
    this.#limitsMoved = true;
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
  /** Limits that are reached, as far as the database has said; and whether it may say otherwise now. */
  readonly #reached = new Set<string>();
  #limitsMoved = false;
  /** Behind which lane the next pass begins, when there are more than one pass looks at. */
  #afterLane: LaneKey | undefined;
  /** How many lanes the last pass found: the fewer there are, the more of each is read at once. */
  #lanes = 1;
  /** Where lanes were left of which many entries were passed over one by one, by their names. */
  #turnsWithin = new Map<string, QueueCursor>();

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
    this.#timer = setTimeout(() => {
      this.#limitsMoved = true;
      if (isDue) this.queued();
      else this.wake();
    }, ms);
    this.#timer.unref();
  }

  /** @returns whether entries may be left */
  async #claimAll(): Promise<boolean> {
    const { sql, index } = this.#options;
    for (const id of await this.#gone(this.#backfill.kept)) this.#backfill.over(id);
    if (this.#limitsMoved) this.#reached.clear();
    this.#limitsMoved = false;
    // Nothing could be placed, but the queue need not be empty.
    if (!index.hasRoom) return true;
    const entries = Math.max(1, Math.floor(PAGE_ENTRIES / this.#lanes));
    const lanes = await readLanes(sql, { after: this.#afterLane, lanes: MAX_LANES, entries });
    const isPart = lanes.length === MAX_LANES || this.#afterLane !== undefined;
    this.#afterLane = lanes.length === MAX_LANES ? lanes.at(-1)?.key : undefined;
    this.#lanes = Math.max(1, lanes.length);
    const pass = this.#passOver(lanes, entries);
    for (let page = 0; page < PAGES_IN_A_PASS; page++) {
      const decisions = await this.#decide(pass);
      if (decisions.length === 0) {
        this.#turnsWithin = new Map(pass.leftAt.map(({ key, cursor }) => [nameOf(key), cursor]));
        // The others have their turn at once, but for the end of the round.
        if (isPart && this.#afterLane !== undefined) this.#again = true;
        return pass.left || isPart;
      }
      await this.#claim(pass, decisions);
    }
    this.#again = true;
    return true;
  }

  /** Those of some executions that wait no more. */
  async #gone(ids: readonly string[]): Promise<string[]> {
    const waiting = await stillWaiting(this.#options.sql, ids);
    return ids.filter((id) => !waiting.has(id));
  }

  #passOver(lanes: Awaited<ReturnType<typeof readLanes>>, entriesRead: number): QueuePass {
    const { sql, registry, index, quotaOf } = this.#options;
    return new QueuePass(
      {
        registry,
        index,
        place: (requirement, id) => this.#place(requirement, id),
        turns: this.#turns,
        backfill: this.#backfill,
        requirementOf: (entry) => this.#requirementOf(entry),
        read: (key, after) => readLane(sql, key, after, PAGE_ENTRIES),
        pageEntries: PAGE_ENTRIES,
        quotaOf: (tenantId) => {
          const quota = quotaOf(tenantId);
          return typeof quota === 'number' ? quota : undefined;
        },
        turnOf: (key) => this.#turnsWithin.get(nameOf(key)),
        reached: this.#reached,
      },
      lanes,
      entriesRead,
    );
  }

  async #decide(pass: QueuePass): Promise<Decision[]> {
    const decisions: Decision[] = [];
    try {
      await pass.decide(PAGE_ENTRIES, decisions);
      return decisions;
    } catch (error) {
      this.#undo(decisions);
      throw error;
    }
  }

  /** Those that are counted by the database are told to it apart: the others need not wait for their turn. */
  async #claim(pass: QueuePass, decisions: readonly Decision[]): Promise<void> {
    const { sql, quotaOf, defaultQuota } = this.#options;
    const isLimited = ({ requirement: { limit, tenantId } }: Decision) =>
      limit !== undefined || quotaOf(tenantId) !== 'none';
    const free = decisions.filter((decision) => !isLimited(decision));
    const limited = decisions.filter(isLimited);
    try {
      await this.#assign(free, async (claims) => {
        const rows = await assignClaims(sql, claims, State.ASSIGNED);
        // Another replica was first: there is room for what comes behind.
        if (rows.length < claims.length) this.#again = true;
        return rows;
      });
    } catch (error) {
      this.#undo(limited);
      throw error;
    }
    await this.#assign(limited, async () => {
      const claims = limited.map((decision) => {
        const { tenantId, limit } = decision.requirement;
        const maxActive = limit?.maxActive ?? Number.POSITIVE_INFINITY;
        return { ...claimOf(decision), tenantId, key: limit?.key, maxActive, hasQuota: quotaOf(tenantId) !== 'none' };
      });
      const { assigned, left } = await assignLimitedClaims(sql, claims, State.ASSIGNED, defaultQuota);
      for (const decision of limited) {
        const of = left.get(decision.entry.id);
        if (of !== undefined) pass.limitReached(decision, of);
      }
      // Others may have found no room because of them. The next pass knows the limits: it comes to an end.
      if (assigned.length < claims.length) this.#again = true;
      return assigned;
    });
  }

  /** Tells the database of decisions, and whoever follows the executions of what it has taken. */
  async #assign(decisions: readonly Decision[], claim: (claims: Claim[]) => Promise<Assigned[]>): Promise<void> {
    if (decisions.length === 0) return;
    let rows: Assigned[];
    try {
      failpoint('claim-before-commit');
      rows = await claim(decisions.map(claimOf));
      failpoint('claim-committed');
    } catch (error) {
      this.#undo(decisions);
      throw error;
    }
    const taken = new Map(rows.map((row) => [row.id, row]));
    const { registry, logger, onClaimed } = this.#options;
    for (const decision of decisions) {
      const row = taken.get(decision.entry.id);
      if (row === undefined) {
        this.#undo([decision]);
        continue;
      }
      try {
        await onClaimed({ ...decision.entry, ...row });
      } catch (error) {
        // The sweep for attempts that nobody follows puts it back.
        logger.error({ err: error, executionId: row.id }, 'a claimed execution could not be assigned');
        registry.freeSlot(row.agentId, row.id);
      }
    }
  }

  #undo(decisions: readonly Decision[]): void {
    for (const { agentId, entry } of decisions) this.#options.registry.freeSlot(agentId, entry.id);
  }

  #place(requirement: Requirement, executionId: string): Candidate | undefined {
    const startMs = performance.now();
    const candidate = this.#options.index.place(requirement, executionId);
    this.#options.onLooked(candidate !== undefined, (performance.now() - startMs) / 1000);
    return candidate;
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
