import { create } from '@bufbuild/protobuf';
import { type Limits, LimitsSchema, Limits_Network as Network } from '@harrier/shared/gen/module';
import type { TaskClass } from '@harrier/shared/task-classes-file';
import type { WrittenLimits } from './demand.ts';

const MIB = 1024 * 1024;
/** What an attempt may use where neither module nor request says otherwise. */
const DEFAULT_LIMITS = {
  memoryBytes: BigInt(512 * MIB),
  stdoutBytes: BigInt(16 * MIB),
  stderrBytes: BigInt(16 * MIB),
  outputBytes: BigInt(8 * MIB - 64 * 1024),
  tmpBytes: BigInt(64 * MIB),
  processes: 512,
  network: Network.NONE,
} as const;
const SIZES = ['memoryBytes', 'stdoutBytes', 'stderrBytes', 'outputBytes', 'tmpBytes'] as const;

/**
 * The limits of an attempt: the first that is set, of request, module, class, default. What neither request nor module says is no
 * more than the class allows.
 * @param gpus how many it gets
 * @param isJob it is a job of Slurm
 */
export function limitsOf(written: WrittenLimits, taskClass: TaskClass, gpus: number, isJob: boolean): Limits {
  const limits = mergeLimits([...written, taskClass.limits], gpus);
  const { maxLimits } = taskClass;
  for (const size of SIZES) {
    const most = maxLimits[size];
    if (most > 0n && limits[size] > most && !isWritten(written, size)) limits[size] = most;
  }
  const { processes, network } = maxLimits;
  if (processes > 0 && limits.processes > processes && !isWritten(written, 'processes')) limits.processes = processes;
  if (network > 0 && limits.network > network && !isWritten(written, 'network')) {
    limits.network = network;
    limits.egressHosts = [];
  }
  // The cluster gives a job one processor where nobody says how many; limits become requests of the job.
  if (isCpuUnsaid(written, taskClass) && !isJob) limits.cpu = maxLimits.cpu;
  return limits;
}

/** Nobody has said how many processors it may use: that is as many as its host has, and no more than its class allows. */
export function isCpuUnsaid(written: WrittenLimits, taskClass: TaskClass): boolean {
  return !isWritten([...written, taskClass.limits], 'cpu');
}

function isWritten(written: WrittenLimits, field: keyof Limits): boolean {
  return written.some((limits) => Boolean(limits?.[field]));
}

/** The hosts go with the network that was set. */
function mergeLimits(given: readonly (Limits | undefined)[], gpus: number): Limits {
  const network = given.find((limits) => limits?.network);
  const gpu = given.find((limits) => limits?.gpu !== undefined)?.gpu;
  const bytes = (name: (typeof SIZES)[number]) =>
    given.find((limits) => limits?.[name])?.[name] ?? DEFAULT_LIMITS[name];
  return create(LimitsSchema, {
    cpu: given.find((limits) => limits?.cpu)?.cpu ?? 0,
    memoryBytes: bytes('memoryBytes'),
    stdoutBytes: bytes('stdoutBytes'),
    stderrBytes: bytes('stderrBytes'),
    outputBytes: bytes('outputBytes'),
    tmpBytes: bytes('tmpBytes'),
    processes: given.find((limits) => limits?.processes)?.processes ?? DEFAULT_LIMITS.processes,
    network: network?.network ?? DEFAULT_LIMITS.network,
    egressHosts: network?.egressHosts ?? [],
    gpus,
    ...(gpu === undefined ? {} : { gpu }),
  });
}
