import { createHash } from 'node:crypto';
import type { LabelSelector } from '@harrier/shared';
import type { SlotUse } from '../agent-link/agent-slots.ts';
import { ONE_SLOT, type Reservation } from '../agent-link/reservation.ts';

/** What an execution asks of an agent, and of the moment. */
export interface Requirement {
  tenantId: string;
  /** Kind of environment, for example `inline`. */
  environment: string;
  /** All of them must match. */
  selectors: readonly LabelSelector[];
  /** Agents that sent it back a moment ago, by id, with their words: they are not asked now. Absent: none. */
  refusals?: ReadonlyMap<string, string>;
  /** What it takes beside a slot. Absent: nothing. */
  demand?: Demand | undefined;
  /** The least Isolation.Level of the agent. Absent: any. */
  isolation?: number | undefined;
  taskClass?: string;
  /** How long it may run; absent: for as long as it likes. */
  timeoutMs?: number | undefined;
  /** The same for what can use the same warm interpreter or environment. Absent: every agent has what it needs. */
  warmKey?: string | undefined;
  /** How many others with its key may be under way beside it. Absent: any number. */
  limit?: ConcurrencyDemand | undefined;
}

export interface Demand extends Omit<Reservation, 'gpuUuids'> {
  gpus: number;
  gpu: GpuDemand;
}

/** What each of the GPUs must be. */
export interface GpuDemand {
  /** Part of the model's name, in small letters; empty: any. */
  model: string;
  minMemoryBytes: number;
  /** Parts of the version; none: any. */
  minDriverVersion: readonly number[];
  /** Empty: whole cards, and, for one GPU, instances as well. */
  migProfile: string;
}

export interface ConcurrencyDemand {
  /** Executions of the tenant with the same key count together. */
  key: string;
  /** The key is of the module, and was not made up by a caller. */
  ofModule: boolean;
  /** With this one. */
  maxActive: number;
}

export const ANY_GPU: GpuDemand = { model: '', minMemoryBytes: 0, minDriverVersion: [], migProfile: '' };

/** Keys that callers make up may be as many as executions: so many groups of them wait apart from each other. */
const KEY_GROUPS = 64;

/**
 * The lane of the queue that an execution waits in: the same for those that ask the same of agents, so that nobody need look at
 * the second when the first cannot be placed.
 */
export function laneShape({ environment, selectors, demand, isolation, limit }: Requirement): string {
  const key = limit === undefined ? '' : limit.ofModule ? limit.key : String(groupOf(limit.key));
  return digest(JSON.stringify([environment, selectors, demand ?? null, isolation ?? 0, key])).toString(
    'base64url',
    0,
    12,
  );
}

function groupOf(key: string): number {
  return digest(key).readUInt16BE() % KEY_GROUPS;
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/** What an execution with that demand takes, once its GPUs are chosen. */
export function reservationOf(demand: Demand | undefined, gpuUuids: readonly string[]): Reservation {
  if (demand === undefined) return ONE_SLOT;
  const { slots, cpuMilli, memoryBytes, slurmJobs } = demand;
  return { slots, cpuMilli, memoryBytes, slurmJobs, gpuUuids };
}

/** By which executions of a tenant are counted to a task class. */
export function shareOf({ tenantId, taskClass = '' }: Pick<Requirement, 'tenantId' | 'taskClass'>): string {
  return `${tenantId} ${taskClass}`;
}

/** What an execution takes of its agent, from now on. */
export function slotUse(requirement: Requirement, reservation: Reservation, nowMs: number): SlotUse {
  const endMs = nowMs + (requirement.timeoutMs ?? Number.POSITIVE_INFINITY);
  return { reservation, share: shareOf(requirement), endMs };
}
