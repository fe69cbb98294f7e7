import type { Candidate } from '../agent-link/candidate.ts';
import type { Capacity } from '../agent-link/capacity.ts';
import { hasGpus } from './gpu-choice.ts';
import type { Demand } from './requirement.ts';

type Host = Pick<Candidate, 'slots' | 'active' | 'capacity' | 'gpus' | 'taken'>;

const RESOURCES = ['cpuMilli', 'memoryBytes', 'slurmJobs'] as const satisfies (keyof Capacity)[];

/** Whether an agent has what is asked for now. @param demand absent: a slot */
export function hasRoom(host: Host, demand: Demand | undefined): boolean {
  if (demand === undefined) return host.active < host.slots;
  if (host.active + demand.slots > host.slots) return false;
  for (const resource of RESOURCES) if (leftOf(host, resource) < demand[resource]) return false;
  return hasGpus(host, demand);
}

/** What is not reserved; without end where the agent has told no capacity, but for Slurm. */
export function leftOf({ capacity, taken }: Host, resource: (typeof RESOURCES)[number]): number {
  return capacityIn(capacity, resource) - (taken?.[resource] ?? 0);
}

export function capacityIn(capacity: Capacity | undefined, resource: (typeof RESOURCES)[number]): number {
  return capacity?.[resource] ?? (resource === 'slurmJobs' ? 0 : Number.POSITIVE_INFINITY);
}

/** How much of an agent is in use, from 0 to 1: of what it has least of. */
export function loadOf({ slots, active, capacity, taken }: Host): number {
  const slotsLoad = active / slots;
  if (taken === undefined || capacity === undefined) return slotsLoad;
  return Math.max(slotsLoad, taken.cpuMilli / capacity.cpuMilli, taken.memoryBytes / capacity.memoryBytes);
}
