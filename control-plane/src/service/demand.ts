import { create } from '@bufbuild/protobuf';
import { HarrierError } from '@harrier/shared';
import {
  type ConcurrencyLimit,
  type Limits,
  type Module,
  type SlurmJob,
  SlurmJobSchema,
} from '@harrier/shared/gen/module';
import type { TaskClass } from '@harrier/shared/task-classes-file';
import { ANY_GPU, type ConcurrencyDemand, type Demand, type GpuDemand } from '../scheduler/requirement.ts';

/** What is written about limits: in the request, in the module. The defaults of the class are no wish of anybody. */
export type WrittenLimits = readonly (Limits | undefined)[];

export interface AskedGpus {
  count: number;
  gpu: GpuDemand;
}

/** How many GPUs are asked for, and of what kind: by the first that says so, else by the class. */
export function askedGpus(written: WrittenLimits, taskClass: TaskClass): AskedGpus {
  const all = [...written, taskClass.limits];
  const kind = all.find((limits) => limits?.gpu !== undefined)?.gpu;
  const count = all.find((limits) => (limits?.gpus ?? 0) > 0)?.gpus;
  const gpu =
    kind === undefined
      ? ANY_GPU
      : {
          model: kind.model.toLowerCase(),
          minMemoryBytes: Number(kind.minMemoryBytes),
          minDriverVersion: kind.minDriverVersion === '' ? [] : kind.minDriverVersion.split('.').map(Number),
          migProfile: kind.migProfile,
        };
  return { count: count ?? (kind === undefined ? 0 : 1), gpu };
}

/** Request, module and class put together field by field; undefined for what is no job of Slurm. */
export function slurmJobOf(
  request: SlurmJob | undefined,
  module: SlurmJob | undefined,
  taskClass: TaskClass,
): SlurmJob | undefined {
  const given = [request, module, taskClass.slurm].filter((job) => job !== undefined);
  if (given.length === 0) return undefined;
  const first = <T>(read: (job: SlurmJob) => T) => given.map(read).find(Boolean);
  const job = create(SlurmJobSchema, {
    partition: first(({ partition }) => partition) ?? '',
    gres: first(({ gres }) => gres) ?? '',
    cpusPerTask: first(({ cpusPerTask }) => cpusPerTask) ?? 0,
    account: first(({ account }) => account) ?? '',
    qos: first(({ qos }) => qos) ?? '',
    constraint: first(({ constraint }) => constraint) ?? '',
  });
  const time = first((given) => given.time);
  if (time !== undefined) job.time = time;
  return job;
}

/**
 * What is asked of GPUs and of Slurm must be possible somewhere.
 * @param environment kind of environment
 * @param prefix of the fields, for example `module.`
 * @throws HarrierError invalid_argument
 */
export function checkHardware(
  { count, gpu }: AskedGpus,
  slurm: SlurmJob | undefined,
  given: { environment: string; reuse: boolean },
  prefix = '',
): void {
  const refuse = (field: string, problem: string) =>
    new HarrierError('invalid_argument', `${prefix}${field}: ${problem}`, { field: `${prefix}${field}` });
  if (count > 1 && gpu.migProfile !== '') {
    throw refuse('limits.gpus', `is ${count}, but a process can use only one MIG instance`);
  }
  if (slurm === undefined) return;
  if (gpu !== ANY_GPU) {
    throw refuse('limits.gpu', 'Slurm chooses the GPUs of its jobs; name them in slurm.gres or slurm.constraint');
  }
  if (given.environment === 'docker') {
    throw refuse('slurm', 'jobs of Slurm have no containers; use the environment inline, venv or conda');
  }
  if (given.reuse) throw refuse('reuse', 'every job of Slurm starts an interpreter of its own');
}

/**
 * What an attempt takes beside a slot; undefined for nothing. A limit that was written is reserved, since whoever writes it needs
 * it; of those that were not, only what the class reserves.
 */
export function demandOf(
  written: WrittenLimits,
  gpus: AskedGpus,
  slurm: SlurmJob | undefined,
  { reserve }: TaskClass,
): Demand | undefined {
  if (slurm !== undefined) {
    // What it needs is the cluster's, not the agent's.
    return { slots: 0, cpuMilli: 0, memoryBytes: 0, slurmJobs: 1, gpus: 0, gpu: ANY_GPU };
  }
  const cpu = written.find((limits) => (limits?.cpu ?? 0) > 0)?.cpu ?? reserve.cpu;
  const memoryBytes = written.find((limits) => (limits?.memoryBytes ?? 0n) > 0n)?.memoryBytes ?? reserve.memoryBytes;
  const demand: Demand = {
    slots: 1,
    cpuMilli: Math.ceil(cpu * 1000),
    memoryBytes: Number(memoryBytes),
    slurmJobs: 0,
    gpus: gpus.count,
    gpu: gpus.gpu,
  };
  return demand.cpuMilli === 0 && demand.memoryBytes === 0 && demand.gpus === 0 ? undefined : demand;
}

/**
 * How many executions may be under way beside it: a module's limit holds for all of them, and a request may only say fewer.
 * @param module name of the module that it runs; undefined for code, commands and images
 * @throws HarrierError invalid_argument
 */
export function concurrencyOf(
  request: ConcurrencyLimit | undefined,
  ofModule: ConcurrencyLimit | undefined,
  module: string | undefined,
): ConcurrencyDemand | undefined {
  const limit = request ?? ofModule;
  if (limit === undefined) return undefined;
  const maxActive = Math.min(limit.maxActive, ofModule?.maxActive ?? limit.maxActive);
  // Whoever names another key than the module would leave its limit.
  const key = ofModule === undefined ? limit.key : ofModule.key;
  if (key !== '') return { key: `key:${key}`, ofModule: limit === ofModule, maxActive };
  if (module !== undefined) return { key: `module:${module}`, ofModule: true, maxActive };
  const field = 'concurrency.key';
  throw new HarrierError('invalid_argument', `${field} is needed: only modules have a name to count by`, { field });
}

/** @throws HarrierError invalid_argument for a request that widens or leaves the limit of its module */
export function checkConcurrency(request: ConcurrencyLimit | undefined, module: Module | undefined): void {
  const limit = module?.concurrency;
  if (request === undefined || limit === undefined) return;
  const refuse = (field: string, problem: string) => {
    const message = `${field}: ${problem} of the module "${module?.name}", which a request can only make narrower`;
    return new HarrierError('invalid_argument', message, { field });
  };
  if (request.key !== '' && request.key !== limit.key) {
    const own = limit.key === '' ? 'the limit is by the name' : `the key is "${limit.key}"`;
    throw refuse('concurrency.key', `"${request.key}" is another one; ${own}`);
  }
  if (request.maxActive <= limit.maxActive) return;
  throw refuse('concurrency.max_active', `${request.maxActive} is more than the ${limit.maxActive}`);
}
