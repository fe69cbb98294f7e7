import { formatRequirement, type LabelSelector, matchesRequirement } from '@harrier/shared';
import { WaitingConstraint_Kind as Kind } from '@harrier/shared/gen/execution';
import type { Candidate } from '../agent-link/candidate.ts';
import { isAvailable, isSuitable } from './gpu-choice.ts';
import type { Demand, Requirement } from './requirement.ts';
import { capacityIn, leftOf } from './room.ts';

const GIB = 1024 ** 3;
const MIB = 1024 ** 2;

/** What keeps an execution from an agent. */
export interface Constraint {
  kind: Kind;
  /** For people, with the figures. */
  message: string;
  /** The agent could never take it as it is now, whatever ends. */
  permanent: boolean;
}

/** The first thing that keeps an execution from an agent; undefined when it could go there now. */
export function constraintOf(requirement: Requirement, candidate: Candidate): Constraint | undefined {
  return lastingConstraintOf(requirement, candidate) ?? roomConstraintOf(requirement, candidate);
}

/** What keeps it from the agent whatever ends there. */
export function lastingConstraintOf(requirement: Requirement, candidate: Candidate): Constraint | undefined {
  if (candidate.tenantId !== requirement.tenantId) return lasting(Kind.LABELS, 'belongs to another tenant');
  if (candidate.draining) return { kind: Kind.DRAINING, message: 'draining', permanent: false };
  const lack = lackOf(requirement.environment, candidate) ?? slurmLack(requirement, candidate);
  if (lack !== undefined) return lasting(Kind.ENVIRONMENT, lack);
  if ((candidate.isolation ?? Number.POSITIVE_INFINITY) < (requirement.isolation ?? 0)) {
    return lasting(Kind.ENVIRONMENT, 'runs code without a sandbox, which the task class does not allow');
  }
  const label = mismatch(requirement.selectors, candidate);
  if (label !== undefined) return lasting(Kind.LABELS, `labels do not match "${formatRequirement(label)}"`);
  const { demand } = requirement;
  const missing = demand === undefined ? undefined : capacityLack(demand, candidate);
  if (missing !== undefined) return missing;
  const refusal = requirement.refusals?.get(candidate.id);
  return refusal === undefined ? undefined : { kind: Kind.REFUSED, message: refusal, permanent: false };
}

/** What is in use of what it asks for. */
function roomConstraintOf({ demand }: Requirement, candidate: Candidate): Constraint | undefined {
  const busy = (kind: Kind, message: string) => ({ kind, message, permanent: false });
  if (candidate.active + (demand?.slots ?? 1) > candidate.slots) {
    return busy(Kind.SLOTS, `all ${candidate.slots} slots are in use`);
  }
  if (demand === undefined) return undefined;
  const { cpuMilli, memoryBytes, slurmJobs } = demand;
  const left = { cpu: leftOf(candidate, 'cpuMilli'), memory: leftOf(candidate, 'memoryBytes') };
  if (left.cpu < cpuMilli) {
    const all = capacityIn(candidate.capacity, 'cpuMilli');
    return busy(Kind.CPU, `needs ${cpus(cpuMilli)}, ${formatCpus(left.cpu)} of ${formatCpus(all)} are free`);
  }
  if (left.memory < memoryBytes) {
    const all = capacityIn(candidate.capacity, 'memoryBytes');
    return busy(
      Kind.MEMORY,
      `needs ${formatSize(memoryBytes)} of memory, ${formatSize(left.memory)} of ${formatSize(all)} are free`,
    );
  }
  if (leftOf(candidate, 'slurmJobs') < slurmJobs) {
    const all = capacityIn(candidate.capacity, 'slurmJobs');
    return busy(Kind.SLOTS, `all ${all} jobs of Slurm that it may have are there`);
  }
  const free = suitable(demand, candidate).filter((device) => isAvailable(device, candidate)).length;
  if (free >= demand.gpus) return undefined;
  return busy(Kind.GPUS, `needs ${gpus(demand)}, ${free} of ${suitable(demand, candidate).length} are free`);
}

/** What the agent has too little of, all of it taken together. */
function capacityLack(demand: Demand, candidate: Candidate): Constraint | undefined {
  const { capacity } = candidate;
  const cpuMilli = capacityIn(capacity, 'cpuMilli');
  if (cpuMilli < demand.cpuMilli) {
    return lasting(Kind.CPU, `needs ${cpus(demand.cpuMilli)}, it has ${formatCpus(cpuMilli)}`);
  }
  const memoryBytes = capacityIn(capacity, 'memoryBytes');
  if (memoryBytes < demand.memoryBytes) {
    const message = `needs ${formatSize(demand.memoryBytes)} of memory, it has ${formatSize(memoryBytes)}`;
    return lasting(Kind.MEMORY, message);
  }
  if (demand.gpus === 0) return undefined;
  const devices = candidate.gpus?.devices ?? [];
  if (devices.length === 0) return lasting(Kind.GPUS, `needs ${gpus(demand)}, it gives none`);
  const fit = suitable(demand, candidate);
  const sound = fit.filter(({ quarantineReason }) => quarantineReason === undefined);
  if (fit.length < demand.gpus) {
    const kinds = [...new Set(devices.map(describeDevice))].join(', ');
    return lasting(Kind.GPUS, `needs ${gpus(demand)}, ${fit.length} of ${devices.length} are so (${kinds})`);
  }
  if (sound.length >= demand.gpus) return undefined;
  const reasons = fit.flatMap(({ uuid, quarantineReason: reason }) =>
    reason === undefined ? [] : `${uuid}: ${reason}`,
  );
  return {
    kind: Kind.GPUS,
    message: `needs ${gpus(demand)}, ${reasons.length} of ${fit.length} are quarantined (${reasons.join('; ')})`,
    permanent: false,
  };
}

function suitable(demand: Demand, { gpus: inventory }: Candidate) {
  return (inventory?.devices ?? []).filter((device) => isSuitable(device, demand));
}

function lasting(kind: Kind, message: string): Constraint {
  return { kind, message, permanent: true };
}

/** Whether the agent's labels match all of the selectors. */
export function selects(selectors: readonly LabelSelector[], agent: Pick<Candidate, 'labels'>): boolean {
  return mismatch(selectors, agent) === undefined;
}

function mismatch(selectors: readonly LabelSelector[], { labels }: Pick<Candidate, 'labels'>) {
  for (const selector of selectors) {
    for (const requirement of selector) if (!matchesRequirement(requirement, labels)) return requirement;
  }
  return undefined;
}

/** Why an agent cannot prepare an environment, linked or not; undefined when it can. */
export function lackOf(
  environment: string,
  agent: Pick<Candidate, 'environments' | 'unavailableEnvironments'>,
): string | undefined {
  if (agent.environments.has(environment)) return undefined;
  const reason = agent.unavailableEnvironments[environment];
  return reason === undefined ? `has no environment "${environment}"` : `no environment "${environment}": ${reason}`;
}

/** Why an agent cannot submit to Slurm what is to be submitted; undefined when it can. */
export function slurmLack(
  { demand }: Pick<Requirement, 'demand'>,
  agent: Pick<Candidate, 'environments' | 'unavailableEnvironments'>,
): string | undefined {
  if (demand === undefined || demand.slurmJobs === 0 || agent.environments.has(SLURM)) return undefined;
  const reason = agent.unavailableEnvironments[SLURM];
  return reason === undefined ? 'has no Slurm' : `no Slurm: ${reason}`;
}

/** How an agent says that it can submit to Slurm. */
export const SLURM = 'slurm';

function gpus({ gpus: count, gpu }: Demand): string {
  const conditions = [
    gpu.migProfile === '' ? '' : `MIG profile ${gpu.migProfile}`,
    gpu.model === '' ? '' : `model "${gpu.model}"`,
    gpu.minMemoryBytes === 0 ? '' : `at least ${formatSize(gpu.minMemoryBytes)}`,
    gpu.minDriverVersion.length === 0 ? '' : `driver ${gpu.minDriverVersion.join('.')} or newer`,
  ].filter((text) => text !== '');
  const named = `${count} ${count === 1 ? 'GPU' : 'GPUs'}`;
  return conditions.length === 0 ? named : `${named} (${conditions.join(', ')})`;
}

function describeDevice(device: {
  model: string;
  memoryBytes: number;
  driverVersion: string;
  migProfile: string;
}): string {
  const { model, memoryBytes, driverVersion, migProfile } = device;
  const instance = migProfile === '' ? '' : ` MIG ${migProfile}`;
  return `${model}${instance}, ${formatSize(memoryBytes)}, driver ${driverVersion}`;
}

function cpus(milli: number): string {
  return `${formatCpus(milli)} ${milli === 1000 ? 'processor' : 'processors'}`;
}

function formatCpus(milli: number): string {
  return String(Math.round(milli) / 1000);
}

function formatSize(bytes: number): string {
  return bytes >= GIB ? `${Math.round((bytes / GIB) * 10) / 10} GiB` : `${Math.round(bytes / MIB)} MiB`;
}
