import type { Assignment } from '@harrier/shared/gen/link';
import { type Limits, Limits_Network as Network } from '@harrier/shared/gen/module';

/** What this agent's own configuration allows an attempt to ask for, whatever the control plane says. */
export interface LimitCaps {
  /** Processors. */
  cpu: number;
  memoryBytes: number;
  tmpBytes: number;
  network: NetworkCap;
}

/** The most network access: each word includes those before it. */
export const NETWORK_CAPS = ['none', 'index', 'egress', 'full'] as const;
export type NetworkCap = (typeof NETWORK_CAPS)[number];

const SETTINGS = [
  { field: 'memoryBytes', name: 'memory_bytes', setting: 'HARRIER_AGENT_MAX_MEMORY_BYTES' },
  { field: 'tmpBytes', name: 'tmp_bytes', setting: 'HARRIER_AGENT_MAX_TMP_BYTES' },
] as const;

/**
 * Why these limits are not allowed here, with the limit, what is asked and the most; undefined when they are. An
 * assignment has every limit set: one that is missing would be no limit at all, and is not allowed either.
 */
export function deniedLimit(limits: Limits | undefined, caps: LimitCaps): string | undefined {
  for (const { field, name, setting } of SETTINGS) {
    const asked = limits?.[field] ?? 0n;
    if (asked > 0n && asked <= BigInt(caps[field])) continue;
    const what = asked === 0n ? 'no bound' : `${asked} bytes`;
    return `limits.${name} asks for ${what}; this agent allows at most ${caps[field]} bytes (${setting})`;
  }
  const cpu = limits?.cpu ?? 0;
  if (cpu > caps.cpu) {
    return `limits.cpu asks for ${cpu} processors; this agent has ${caps.cpu} for executions (HARRIER_AGENT_CPUS)`;
  }
  return deniedNetwork(limits?.network ?? Network.NONE, caps.network);
}

/** Why an assignment cannot run on this host, whatever is free; undefined when it can. */
export function deniedHere(assignment: Assignment, caps: LimitCaps): string | undefined {
  return deniedLimit(assignment.limits, caps) ?? deniedGpus(assignment);
}

/**
 * Why an assignment cannot be a job of Slurm; undefined when it can. Memory and GPUs of jobs are those of the nodes, and the
 * cluster's to give.
 */
export function deniedForJob(assignment: Assignment, caps: LimitCaps): string | undefined {
  if (assignment.program.case === 'image' || assignment.environment?.kind.case === 'docker') {
    return 'jobs of Slurm run in inline, venv and conda environments: nodes of a cluster run no images';
  }
  const most = Number.MAX_SAFE_INTEGER;
  return deniedLimit(assignment.limits, { ...caps, cpu: most, memoryBytes: most, tmpBytes: most });
}

/** Whole cards only, each by its name: code that asks for one and gets none would find that out late. */
export function deniedGpus({ limits, gpuUuids, slurm }: Assignment): string | undefined {
  const asked = limits?.gpus ?? 0;
  if (slurm !== undefined || asked === gpuUuids.length) return undefined;
  return `limits.gpus asks for ${asked}, and the assignment names ${gpuUuids.length}`;
}

function deniedNetwork(asked: Network, cap: NetworkCap): string | undefined {
  // The words of the schema stand in the same order, behind the unspecified one, which is none.
  const order = Math.max(asked, Network.NONE) - Network.NONE;
  if (order <= NETWORK_CAPS.indexOf(cap)) return undefined;
  const name = NETWORK_CAPS[order]?.toUpperCase() ?? asked;
  return `limits.network asks for ${name}; this agent allows at most ${cap.toUpperCase()} (HARRIER_AGENT_MAX_NETWORK)`;
}
