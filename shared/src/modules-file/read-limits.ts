import { clone, create } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import {
  type ConcurrencyLimit,
  ConcurrencyLimitSchema,
  type GpuRequirement,
  GpuRequirementSchema,
  type Limits,
  LimitsSchema,
  Limits_Network as Network,
  type SlurmJob,
  SlurmJobSchema,
} from '../gen/harrier/v1/module_pb.ts';
import type { MapReader } from '../yaml-file/map-reader.ts';

const SIZES = {
  memoryBytes: 'memory_bytes',
  stdoutBytes: 'stdout_bytes',
  stderrBytes: 'stderr_bytes',
  outputBytes: 'output_bytes',
  tmpBytes: 'tmp_bytes',
} as const;
const NETWORKS = { none: Network.NONE, index: Network.INDEX, egress: Network.EGRESS, full: Network.FULL } as const;

/** Reads `limits`. @param before what holds for absent fields; default: 0, as in the schema */
export function readLimits(fields: MapReader, before: Limits = create(LimitsSchema)): Limits {
  const limits = clone(LimitsSchema, before);
  for (const [local, name] of Object.entries(SIZES) as [keyof typeof SIZES, string][]) {
    limits[local] = fields.bytes(name) ?? before[local];
  }
  limits.cpu = fields.number('cpu') ?? before.cpu;
  limits.processes = fields.integer('processes') ?? before.processes;
  limits.egressHosts = fields.texts('egress_hosts') ?? before.egressHosts;
  limits.network = fields.oneOf('network', NETWORKS) ?? before.network;
  limits.gpus = fields.integer('gpus') ?? before.gpus;
  const gpu = fields.map('gpu');
  if (gpu !== undefined) limits.gpu = readGpu(gpu, before.gpu);
  fields.finish();
  return limits;
}

function readGpu(fields: MapReader, before: GpuRequirement = create(GpuRequirementSchema)): GpuRequirement {
  const gpu = create(GpuRequirementSchema, {
    model: fields.text('model') ?? before.model,
    minMemoryBytes: fields.bytes('min_memory_bytes') ?? before.minMemoryBytes,
    minDriverVersion: fields.text('min_driver_version') ?? before.minDriverVersion,
    migProfile: fields.text('mig_profile') ?? before.migProfile,
  });
  fields.finish();
  return gpu;
}

/** Reads `slurm`. @param before what holds for absent fields; default: nothing */
export function readSlurm(fields: MapReader, before: SlurmJob = create(SlurmJobSchema)): SlurmJob {
  const job = clone(SlurmJobSchema, before);
  job.partition = fields.text('partition') ?? before.partition;
  job.gres = fields.text('gres') ?? before.gres;
  job.cpusPerTask = fields.integer('cpus_per_task') ?? before.cpusPerTask;
  job.account = fields.text('account') ?? before.account;
  job.qos = fields.text('qos') ?? before.qos;
  job.constraint = fields.text('constraint') ?? before.constraint;
  const timeMs = fields.durationMs('time');
  if (timeMs !== undefined) job.time = durationFromMs(timeMs);
  fields.finish();
  return job;
}

/** Reads `concurrency`. */
export function readConcurrency(fields: MapReader): ConcurrencyLimit {
  const limit = create(ConcurrencyLimitSchema, {
    key: fields.text('key') ?? '',
    maxActive: fields.integer('max_active') ?? 0,
  });
  fields.finish();
  return limit;
}
