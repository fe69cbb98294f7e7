import type { AgentRegistry } from '../agent-link/agent-registry.ts';
import type { SlotUse } from '../agent-link/agent-slots.ts';
import type { Candidate } from '../agent-link/candidate.ts';
import { TakenResources } from '../agent-link/reservation.ts';
import type { AgentIndex } from './agent-index.ts';
import { lastingConstraintOf } from './constraint.ts';
import { isSuitable } from './gpu-choice.ts';
import { type Demand, type Requirement, reservationOf } from './requirement.ts';
import { hasRoom } from './room.ts';

/** An execution that found no room is passed over for so long, or so often, before an agent is kept for it. */
const PASSED_OVER_MS = 5_000;
const PASSED_OVER_TIMES = 100;
/** Agents of a tenant that are kept at once: each takes a little time of every decision. */
const MAX_KEPT = 8;
/** What was not seen to wait for so long is forgotten. */
const FORGET_MS = 60_000;

/** An agent that is kept for an execution. */
interface Kept {
  agentId: string;
  tenantId: string;
  demand: Demand;
  /** By then, at the latest, the agent has room for it. */
  byMs: number;
}

interface Waiting {
  sinceMs: number;
  /** Decisions that had been made by then. */
  since: number;
  seenMs: number;
}

export interface BackfillOptions {
  registry: Pick<AgentRegistry, 'candidates' | 'uses' | 'get'>;
  index: AgentIndex;
  nowMs?: () => number;
}

/**
 * Lets small executions run around one that waits for much, and sees to it that they do not keep it waiting for ever: after a while
 * the agent that will have room for it first is kept for it. Others run there only if they are over by then, or if there is room
 * beside. Source: Lifka, "The ANL/IBM SP scheduling system" (1995), known as EASY backfilling, with timeouts for run times.
 */
export class Backfill {
  readonly #options: BackfillOptions;
  readonly #nowMs: () => number;
  readonly #waiting = new Map<string, Waiting>();
  readonly #kept = new Map<string, Kept>();
  #decisions = 0;

  constructor(options: BackfillOptions) {
    this.#options = options;
    this.#nowMs = options.nowMs ?? (() => performance.now());
  }

  /** Executions for which agents are kept. */
  get kept(): string[] {
    return [...this.#kept.keys()];
  }

  /** For whom an agent is kept; undefined: for nobody. */
  keptFor(agentId: string): string | undefined {
    for (const [executionId, kept] of this.#kept) if (kept.agentId === agentId) return executionId;
    return undefined;
  }

  /** Something was placed. */
  decided(): void {
    this.#decisions++;
  }

  /** An execution was placed or does not wait any more. */
  over(executionId: string): void {
    this.#waiting.delete(executionId);
    const kept = this.#kept.get(executionId);
    if (kept === undefined) return;
    this.#kept.delete(executionId);
    if (this.#options.index.keeps(kept.agentId, executionId)) this.#options.index.keep(kept.agentId, undefined);
  }

  /** It is first of those that ask the same, and no agent has room for it. */
  blocked(executionId: string, requirement: Requirement): void {
    const { demand } = requirement;
    // Any slot that is freed is enough for the others.
    if (demand === undefined || demand.slots === 0) return;
    const nowMs = this.#nowMs();
    const kept = this.#kept.get(executionId);
    if (kept !== undefined) {
      if (this.#options.index.keeps(kept.agentId, executionId) && this.#canTake(kept.agentId, requirement)) return;
      this.over(executionId);
    }
    const waiting = this.#waiting.get(executionId);
    if (waiting === undefined) {
      this.#waiting.set(executionId, { sinceMs: nowMs, since: this.#decisions, seenMs: nowMs });
      this.#forget(nowMs);
      return;
    }
    waiting.seenMs = nowMs;
    const isPassedOver = this.#decisions - waiting.since >= PASSED_OVER_TIMES;
    if (!isPassedOver && nowMs - waiting.sinceMs < PASSED_OVER_MS) return;
    this.#keep(executionId, requirement, demand, nowMs);
  }

  /** Whether a kept agent may be given to another execution. */
  #allows(kept: Kept, requirement: Requirement): boolean {
    const agent = this.#options.registry.get(kept.agentId);
    if (agent === undefined) return false;
    return isInNobodysWay(requirement, agent, kept, this.#options.registry.uses(kept.agentId), this.#nowMs());
  }

  #canTake(agentId: string, requirement: Requirement): boolean {
    const agent = this.#options.registry.get(agentId);
    return agent !== undefined && lastingConstraintOf(requirement, agent) === undefined;
  }

  #keep(executionId: string, requirement: Requirement, demand: Demand, nowMs: number): void {
    const { registry, index } = this.#options;
    this.#dropLost();
    const ofTenant = [...this.#kept.values()].filter(({ tenantId }) => tenantId === requirement.tenantId);
    if (ofTenant.length >= MAX_KEPT) return;
    const taken = new Set(ofTenant.map(({ agentId }) => agentId));
    let best: { agentId: string; byMs: number } | undefined;
    for (const agent of registry.candidates()) {
      if (taken.has(agent.id) || lastingConstraintOf(requirement, agent) !== undefined) continue;
      const byMs = roomByMs(agent, demand, registry.uses(agent.id), nowMs);
      if (byMs < (best?.byMs ?? Number.POSITIVE_INFINITY)) best = { agentId: agent.id, byMs };
    }
    if (best === undefined) return;
    const kept: Kept = { ...best, tenantId: requirement.tenantId, demand };
    this.#kept.set(executionId, kept);
    index.keep(best.agentId, { executionId, allows: (other) => this.#allows(kept, other) });
  }

  /** What agents that left were kept for must not count: nobody may ask for it again, since it ended at another replica. */
  #dropLost(): void {
    for (const [executionId, { agentId }] of this.#kept) {
      if (!this.#options.index.keeps(agentId, executionId)) this.#kept.delete(executionId);
    }
  }

  #forget(nowMs: number): void {
    for (const [id, { seenMs }] of this.#waiting) if (nowMs - seenMs > FORGET_MS) this.#waiting.delete(id);
  }
}

/**
 * When an agent has room for a demand at the latest: executions leave it in the order of their ends.
 * @returns infinite when it has none even when all are over whose end is known
 */
export function roomByMs(agent: Candidate, demand: Demand, uses: Iterable<SlotUse>, nowMs: number): number {
  const ends = [...uses].toSorted((a, b) => a.endMs - b.endMs);
  const left = sumOf(ends);
  if (hasRoomWith(agent, demand, left)) return nowMs;
  for (const [at, { reservation, endMs }] of ends.entries()) {
    left.subtract(idOf(at), reservation);
    if (hasRoomWith(agent, demand, left)) return Math.max(endMs, nowMs);
  }
  return Number.POSITIVE_INFINITY;
}

/** Whether another execution on a kept agent is over in time, or leaves room for the one for which it is kept. */
export function isInNobodysWay(
  { timeoutMs, demand }: Pick<Requirement, 'timeoutMs' | 'demand'>,
  agent: Candidate,
  kept: Pick<Kept, 'demand' | 'byMs'>,
  uses: Iterable<SlotUse>,
  nowMs: number,
): boolean {
  if (nowMs + (timeoutMs ?? Number.POSITIVE_INFINITY) <= kept.byMs) return true;
  const staying = sumOf([...uses].filter(({ endMs }) => endMs > kept.byMs));
  const other = reservationOf(demand, []);
  staying.add(OTHER, other);
  // It may get any of the cards that fit, the worst for the one that waits.
  const spare = (demand?.gpus ?? 0) > 0 && kept.demand.gpus > 0 ? (demand?.gpus ?? 0) : 0;
  const wanted: Demand = { ...kept.demand, gpus: kept.demand.gpus + spare };
  return hasRoomWith(agent, wanted, staying);
}

const OTHER = 'other';

/** Cards that are in use now count as free once they are not taken: their agent says so then. */
function hasRoomWith(agent: Candidate, demand: Demand, taken: TakenResources): boolean {
  const { gpus, ...rest } = demand;
  const host = { ...agent, active: taken.slots, taken };
  if (!hasRoom(host, { ...rest, gpus: 0 })) return false;
  let missing = gpus;
  // Whether a card suits does not depend on how many of them others take.
  const asked = { gpus: demand.gpus, gpu: demand.gpu };
  for (const device of agent.gpus?.devices ?? []) {
    if (missing === 0) break;
    const isSound = device.quarantineReason === undefined && !taken.gpus.has(device.uuid);
    if (isSound && isSuitable(device, asked)) missing--;
  }
  return missing <= 0;
}

function sumOf(uses: readonly SlotUse[]): TakenResources {
  const sum = new TakenResources();
  for (const [at, { reservation }] of uses.entries()) sum.add(idOf(at), reservation);
  return sum;
}

function idOf(at: number): string {
  return String(at);
}
