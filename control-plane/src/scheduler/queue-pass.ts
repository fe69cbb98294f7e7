import type { AgentRegistry } from '../agent-link/agent-registry.ts';
import type { Candidate } from '../agent-link/candidate.ts';
import { ONE_SLOT, type Reservation, storedReservation } from '../agent-link/reservation.ts';
import type { LaneKey, QueueCursor, WaitingExecution, WaitingLane } from '../db/queries/claim-executions.ts';
import type { AgentIndex } from './agent-index.ts';
import type { Backfill } from './backfill.ts';
import type { FairTurns } from './fair-turns.ts';
import { chooseGpus } from './gpu-choice.ts';
import { laneShape, type Requirement, reservationOf, slotUse } from './requirement.ts';

/** A decision that the database is to be told of: what it takes is reserved. */
export interface Decision {
  entry: WaitingExecution;
  requirement: Requirement;
  agentId: string;
  reservation: Reservation;
}

/** Part of the queue as a pass sees it. */
interface PassLane {
  key: LaneKey;
  tenantId: string;
  taskClass: string;
  priority: number;
  id: string;
  entries: WaitingExecution[];
  /** Where the entries that were read end; undefined: nothing waits behind them. */
  end: QueueCursor | undefined;
  /** Entries that were passed over one by one. */
  passedOver: number;
}

export interface QueuePassOptions {
  registry: Pick<AgentRegistry, 'reserveSlot'>;
  index: Pick<AgentIndex, 'hasRoom' | 'placed'>;
  place: (requirement: Requirement, executionId: string) => Candidate | undefined;
  turns: FairTurns;
  backfill: Backfill;
  /** What a waiting execution asks for; undefined for one that cannot be read: it stays queued. */
  requirementOf: (entry: WaitingExecution) => Promise<Requirement | undefined>;
  /** More entries of a lane. */
  read: (key: LaneKey, after: QueueCursor) => Promise<WaitingExecution[]>;
  /** Fewer entries than that in a page: nothing waits behind it. */
  pageEntries: number;
  /** How many executions of a tenant may be under way; undefined: any number. */
  quotaOf: (tenantId: string) => number | undefined;
  /** Limits that are known to be reached; those that are found to be are added. */
  reached: Set<string>;
  /** Where the look behind entries that were passed over is to go on. */
  turnOf: (key: LaneKey) => QueueCursor | undefined;
}

/** Entries of a lane that are passed over before the rest of it has to wait for another pass. */
const MAX_PASSED_OVER = 1_000;

/**
 * One look at the queue: lanes in fair order, the first entry of each. A lane whose first entry finds no agent is left, since its
 * others ask the same.
 */
export class QueuePass {
  readonly #options: QueuePassOptions;
  readonly #lanes = new Map<string, PassLane>();
  /** Decisions by key that the database does not know of yet. */
  readonly #pending = new Map<string, number>();
  /** Something waits that this pass could not place. */
  left = false;
  /** Where lanes were left, because too many of their entries were passed over. */
  readonly leftAt: { key: LaneKey; cursor: QueueCursor }[] = [];

  constructor(options: QueuePassOptions, lanes: readonly WaitingLane[], entriesRead: number) {
    this.#options = options;
    for (const { key, entries } of lanes) {
      const last = entries.at(-1);
      const lane: PassLane = {
        key,
        tenantId: key.tenantId,
        taskClass: key.taskClass,
        priority: 0,
        id: '',
        entries: [...entries],
        end: last === undefined || entries.length < entriesRead ? undefined : { priority: last.priority, id: last.id },
        passedOver: 0,
      };
      const first = entries[0];
      if (first === undefined) continue;
      this.#put(lane, first);
    }
  }

  /**
   * Decides for up to so many entries; for none when there is nothing left to decide.
   * @param decisions where they go: what was reserved is known also when this rejects
   */
  async decide(limit: number, decisions: Decision[]): Promise<void> {
    const { index, turns } = this.#options;
    this.#pending.clear();
    while (decisions.length < limit) {
      if (!index.hasRoom) {
        this.left ||= this.#lanes.size > 0;
        this.#lanes.clear();
        break;
      }
      const lane = turns.next(this.#lanes.values());
      if (lane === undefined) break;
      await this.#tryFirst(lane, decisions);
    }
  }

  /** The database says that a limit is reached, of the key or of the tenant: nothing more of it is tried in this pass. */
  limitReached({ requirement }: Decision, of: 'key' | 'tenant'): void {
    this.left = true;
    this.#options.reached.add(of === 'tenant' ? requirement.tenantId : keyName(requirement));
  }

  async #tryFirst(lane: PassLane, decisions: Decision[]): Promise<void> {
    const { index, place, registry, turns, backfill, requirementOf } = this.#options;
    const entry = lane.entries[0];
    if (entry === undefined) {
      return this.#drop(lane);
    }
    const requirement = await requirementOf(entry);
    if (requirement === undefined) return await this.#passOver(lane, entry);
    const { limit } = requirement;
    if (this.#isReached(lane.tenantId, this.#options.quotaOf(lane.tenantId))) return this.#leave(lane);
    if (limit !== undefined && this.#isReached(keyName(requirement), limit.maxActive)) {
      return limit.ofModule ? this.#leave(lane) : await this.#passOver(lane, entry);
    }
    const agent = place(requirement, entry.id);
    if (agent === undefined) {
      backfill.blocked(entry.id, requirement);
      // What other agents have refused, or what is read otherwise than when it was put there, says nothing of the others.
      const isAlone = (requirement.refusals?.size ?? 0) > 0 || laneShape(requirement) !== lane.key.shape;
      if (isAlone) return await this.#passOver(lane, entry);
      return this.#leave(lane);
    }
    const { demand } = requirement;
    const gpuUuids = demand === undefined ? [] : chooseGpus(agent, demand);
    if (gpuUuids === undefined) throw new Error(`agent ${agent.id} has room, but not enough GPUs`);
    const reservation = demand === undefined ? ONE_SLOT : reservationOf(demand, gpuUuids);
    registry.reserveSlot(agent.id, entry.id, slotUse(requirement, reservation, performance.now()));
    decisions.push({ entry, requirement, agentId: agent.id, reservation });
    index.placed(requirement, agent.id);
    backfill.over(entry.id);
    backfill.decided();
    turns.served(lane);
    this.#count(lane.tenantId);
    if (limit !== undefined) this.#count(keyName(requirement));
    await this.#advance(lane);
  }

  /** What was decided and not yet stored counts too: the database would refuse more. */
  #isReached(name: string, most: number | undefined): boolean {
    return this.#options.reached.has(name) || (this.#pending.get(name) ?? 0) >= (most ?? Number.POSITIVE_INFINITY);
  }

  #count(name: string): void {
    this.#pending.set(name, (this.#pending.get(name) ?? 0) + 1);
  }

  #leave(lane: PassLane): void {
    this.left = true;
    this.#drop(lane);
  }

  async #passOver(lane: PassLane, entry: WaitingExecution): Promise<void> {
    this.left = true;
    lane.passedOver++;
    if (lane.passedOver < MAX_PASSED_OVER) return await this.#advance(lane);
    this.leftAt.push({ key: lane.key, cursor: { priority: entry.priority, id: entry.id } });
    this.#leave(lane);
  }

  /** Goes on to the next entry. */
  async #advance(lane: PassLane): Promise<void> {
    lane.entries.shift();
    if (lane.entries.length === 0 && lane.end !== undefined) {
      const turn = lane.passedOver > 0 ? this.#options.turnOf(lane.key) : undefined;
      const after = turn !== undefined && isBefore(lane.end, turn) ? turn : lane.end;
      lane.entries = await this.#options.read(lane.key, after);
      const last = lane.entries.at(-1);
      const isWhole = last !== undefined && lane.entries.length >= this.#options.pageEntries;
      lane.end = isWhole ? { priority: last.priority, id: last.id } : undefined;
    }
    const first = lane.entries[0];
    if (first === undefined) this.#drop(lane);
    else this.#put(lane, first);
  }

  #put(lane: PassLane, { priority, id }: WaitingExecution): void {
    lane.priority = priority;
    lane.id = id;
    this.#lanes.set(nameOf(lane.key), lane);
  }

  #drop(lane: PassLane): void {
    this.#lanes.delete(nameOf(lane.key));
  }
}

/** What the database is told of a decision. */
export function claimOf({ entry, agentId, reservation }: Decision) {
  return { id: entry.id, agentId, reservation: storedReservation(reservation) };
}

export function nameOf({ tenantId, taskClass, shape }: LaneKey): string {
  return `${tenantId} ${taskClass} ${shape}`;
}

function keyName({ tenantId, limit }: Requirement): string {
  return `${tenantId} ${limit?.key}`;
}

/** In the order of a lane. */
function isBefore(a: QueueCursor, b: QueueCursor): boolean {
  return a.priority === b.priority ? a.id < b.id : a.priority > b.priority;
}
