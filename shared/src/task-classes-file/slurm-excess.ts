import { durationMs } from '@bufbuild/protobuf/wkt';
import type { Limits, SlurmJob } from '../gen/harrier/v1/module_pb.ts';

/** What a job of Slurm asks of the cluster beyond what a class allows. */
interface SlurmExcess {
  /** For example `slurm.time`. */
  field: string;
  problem: string;
}

/** The first field of a job that asks for more than the most of its class; undefined when none does. */
export function slurmExcess(
  { time, cpusPerTask, gres }: SlurmJob,
  { maxTimeoutMs, maxLimits }: { maxTimeoutMs: number | undefined; maxLimits: Limits },
): SlurmExcess | undefined {
  const timeMs = time === undefined ? 0 : durationMs(time);
  if (maxTimeoutMs !== undefined && timeMs > maxTimeoutMs) {
    const problem = `${timeMs / 1000} s is longer than the ${maxTimeoutMs / 1000} s that are allowed`;
    return { field: 'slurm.time', problem };
  }
  // Tasks have whole processors.
  if (maxLimits.cpu > 0 && cpusPerTask > Math.ceil(maxLimits.cpu)) {
    const problem = `${cpusPerTask} is more than the ${maxLimits.cpu} processors that are allowed`;
    return { field: 'slurm.cpus_per_task', problem };
  }
  const gpus = gpusOfGres(gres);
  if (maxLimits.gpus > 0 && gpus > maxLimits.gpus) {
    const problem = `"${gres}" is more than the ${maxLimits.gpus} GPUs that are allowed`;
    return { field: 'slurm.gres', problem };
  }
  return undefined;
}

/**
 * GPUs that generic resources name: `gpu`, `gpu:2`, `gpu:h100:2`, several with commas between them. A count that cannot be read is
 * infinite: it may be any number. Source: "--gres" of sbatch(1).
 */
export function gpusOfGres(gres: string): number {
  let gpus = 0;
  // Sockets in brackets, as lists of jobs show them, have commas too.
  for (const entry of gres
    .toLowerCase()
    .replaceAll(/\([^)]*\)/g, '')
    .split(',')) {
    const [name, ...rest] = entry.replace(/^gres:/, '').split(':');
    if (name !== 'gpu') continue;
    const last = rest.at(-1);
    // A type alone, as in `gpu:h100`, is one of it.
    if (last === undefined || (rest.length === 1 && /^[a-z_]/.test(last))) gpus += 1;
    else gpus += /^\d+$/.test(last) ? Number(last) : Number.POSITIVE_INFINITY;
  }
  return gpus;
}
