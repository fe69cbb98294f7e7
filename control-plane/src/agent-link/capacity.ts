import type { Resources } from '@harrier/shared/gen/agent';
import type { AgentCapacity } from '../db/queries/agents.ts';

/** What executions of an agent can have altogether, but for slots and GPUs. */
export interface Capacity {
  cpuMilli: number;
  memoryBytes: number;
  slurmJobs: number;
}

/** As an agent tells it: what it says nothing of has no end, but for Slurm, which not every host has. */
export function capacityOf(told: Pick<Resources, 'cpu' | 'memoryBytes' | 'slurmJobs'> | undefined): Capacity {
  const endless = Number.POSITIVE_INFINITY;
  return {
    cpuMilli: told === undefined || told.cpu <= 0 ? endless : Math.round(told.cpu * 1000),
    memoryBytes: told === undefined || told.memoryBytes <= 0n ? endless : Number(told.memoryBytes),
    slurmJobs: Math.max(0, told?.slurmJobs ?? 0),
  };
}

/** As it stands in the database. */
export function storedCapacity(told: Resources | undefined): AgentCapacity | null {
  if (told === undefined) return null;
  const { cpu, memoryBytes, gpus, slurmJobs } = told;
  return { cpu, memory_bytes: Number(memoryBytes), gpus, slurm_jobs: slurmJobs };
}

export function readCapacity(stored: AgentCapacity | null): Capacity {
  if (stored === null) return capacityOf(undefined);
  const { cpu, memory_bytes: memoryBytes, slurm_jobs: slurmJobs } = stored;
  return capacityOf({ cpu, memoryBytes: BigInt(memoryBytes), slurmJobs });
}
