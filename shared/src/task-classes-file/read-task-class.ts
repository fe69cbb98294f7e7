import { create } from '@bufbuild/protobuf';
import { messageOf } from '../errors.ts';
import { type Limits, LimitsSchema, type SlurmJob, SlurmJobSchema } from '../gen/harrier/v1/module_pb.ts';
import { parseLabelSelector } from '../label-selector.ts';
import { readLimits, readSlurm } from '../modules-file/read-limits.ts';
import type { MapReader } from '../yaml-file/map-reader.ts';
import { slurmExcess } from './slurm-excess.ts';

/** What executions of a class get where neither request nor module says otherwise, and what they may ask for. */
export interface TaskClass {
  name: string;
  /** Undefined: it may run for as long as it likes; only for jobs of Slurm, whose cluster ends them. */
  timeoutMs: number | undefined;
  /** The longest that may be asked for, also of Slurm. Undefined: as long as the schema allows. */
  maxTimeoutMs: number | undefined;
  /** Defaults; absent fields take those of the control plane. */
  limits: Limits;
  /** The most that may be asked for; 0: whatever the schema allows. */
  maxLimits: Limits;
  /** What is reserved on the agent for those that do not say what they need. 0: nothing. */
  reserve: { cpu: number; memoryBytes: number };
  /** Present: they are jobs of Slurm. */
  slurm: SlurmJob | undefined;
  /** Kinds of environments that they may have. Undefined: any. */
  environments: readonly string[] | undefined;
  /** They run only where code is sandboxed. */
  sandboxOnly: boolean;
  /** Label selector of the agents that take them, beside that of module and request. */
  agentSelector: string;
  /** Is added to the priority of the request. */
  priority: number;
  /** Share beside the other classes of a tenant, where agents do not do for all that waits. */
  weight: number;
}

const MINUTE_MS = 60_000;
const ENVIRONMENTS = ['inline', 'venv', 'conda', 'docker'];
const MAX_NAME_LENGTH = 64;
const NAME = /^[a-z][a-z0-9_-]*$/;
const MAX_PRIORITY = 1_000;
const MAX_WEIGHT = 1_000;
/** As the schema has it for modules and requests. */
const MAX_TIMEOUT_MS = 24 * 60 * MINUTE_MS;
/** As the schema has it for `slurm.time`, which may be longer than a timeout. */
const MAX_SLURM_TIME_MS = 365 * 24 * 60 * MINUTE_MS;

function plainClass(name: string, timeoutMs: number | undefined): TaskClass {
  return {
    name,
    timeoutMs,
    maxTimeoutMs: undefined,
    limits: create(LimitsSchema),
    maxLimits: create(LimitsSchema),
    reserve: { cpu: 0, memoryBytes: 0 },
    slurm: undefined,
    environments: undefined,
    sandboxOnly: false,
    agentSelector: '',
    priority: 0,
    weight: 1,
  };
}

/** Those that every control plane has. */
export const BUILT_IN_CLASSES: ReadonlyMap<string, TaskClass> = new Map(
  [
    plainClass('cpu_short', MINUTE_MS),
    plainClass('cpu_long', 15 * MINUTE_MS),
    { ...plainClass('gpu', 10 * MINUTE_MS), limits: create(LimitsSchema, { gpus: 1 }) },
    { ...plainClass('gpu_slurm', undefined), slurm: create(SlurmJobSchema) },
  ].map((taskClass) => [taskClass.name, taskClass]),
);

/**
 * Reads one entry of `task_classes`. One with the name of a class that is there anyway changes what it names of it, also within
 * `limits` and the like.
 * @returns undefined when it has no name; other problems go to the reader, and what has one is as it was
 */
export function readTaskClass(fields: MapReader): TaskClass | undefined {
  const name = fields.text('name');
  const before = BUILT_IN_CLASSES.get(name ?? '') ?? plainClass(name ?? '', MINUTE_MS);
  const slurm = fields.map('slurm');
  const limits = fields.map('limits');
  const maxLimits = fields.map('max_limits');
  const reserve = fields.map('reserve');
  const taskClass: TaskClass = {
    ...before,
    timeoutMs: readTimeout(fields, 'timeout', MAX_TIMEOUT_MS) ?? before.timeoutMs,
    maxTimeoutMs: readTimeout(fields, 'max_timeout', MAX_SLURM_TIME_MS) ?? before.maxTimeoutMs,
    limits: limits === undefined ? before.limits : readLimits(limits, before.limits),
    maxLimits: maxLimits === undefined ? before.maxLimits : readLimits(maxLimits, before.maxLimits),
    reserve: reserve === undefined ? before.reserve : readReserve(reserve, before.reserve),
    slurm: slurm === undefined ? before.slurm : readSlurm(slurm, before.slurm),
    environments: readEnvironments(fields) ?? before.environments,
    sandboxOnly: fields.oneOf('isolation', { any: false, sandbox: true }) ?? before.sandboxOnly,
    agentSelector: readSelector(fields) ?? before.agentSelector,
    priority: fields.integer('priority') ?? before.priority,
    weight: fields.number('weight') ?? before.weight,
  };
  fields.finish();
  if (name === undefined) {
    if (!fields.has('name')) fields.report('name', 'is missing');
    return undefined;
  }
  if (!NAME.test(name) || name.length > MAX_NAME_LENGTH) {
    fields.report('name', `"${name}" is no name: small letters, digits, _ and -, at most ${MAX_NAME_LENGTH}`);
  }
  check(fields, taskClass);
  return taskClass;
}

function check(fields: MapReader, taskClass: TaskClass): void {
  const { timeoutMs, maxTimeoutMs, limits, maxLimits, slurm, priority, weight } = taskClass;
  if (timeoutMs !== undefined && maxTimeoutMs !== undefined && timeoutMs > maxTimeoutMs) {
    fields.report('timeout', `${timeoutMs / 1000} s is longer than max_timeout, ${maxTimeoutMs / 1000} s`);
  }
  const excess = slurm === undefined ? undefined : slurmExcess(slurm, taskClass);
  if (excess !== undefined) {
    fields.report('slurm', `${excess.field.replace('slurm.', '')}: ${excess.problem} by max_timeout and max_limits`);
  }
  const sizes = [
    'cpu',
    'memoryBytes',
    'stdoutBytes',
    'stderrBytes',
    'outputBytes',
    'tmpBytes',
    'processes',
    'gpus',
  ] as const;
  for (const size of sizes) {
    if (maxLimits[size] > 0 && limits[size] > maxLimits[size]) {
      fields.report('limits', `${size} is ${limits[size]}, more than the ${maxLimits[size]} of max_limits`);
    }
    if (limits[size] < 0) fields.report('limits', `${size} is ${limits[size]}; it must be 0 or more`);
    if (maxLimits[size] < 0) fields.report('max_limits', `${size} is ${maxLimits[size]}; it must be 0 or more`);
  }
  if (maxLimits.gpu !== undefined) fields.report('max_limits', 'gpu says what a GPU must be; it has no most');
  if (Math.abs(priority) > MAX_PRIORITY) {
    fields.report('priority', `must be from -${MAX_PRIORITY} to ${MAX_PRIORITY}, not ${priority}`);
  }
  if (!(weight > 0 && weight <= MAX_WEIGHT)) {
    fields.report('weight', `must be greater than 0 and at most ${MAX_WEIGHT}, not ${weight}`);
  }
}

function readTimeout(fields: MapReader, name: string, mostMs: number): number | undefined {
  const ms = fields.durationMs(name);
  if (ms === undefined || (ms > 0 && ms <= mostMs)) return ms;
  const most = `must be more than 0 and at most ${mostMs / MINUTE_MS / 60}h`;
  fields.report(name, name === 'timeout' ? `${most}; jobs of Slurm may have longer ones in slurm.time` : most);
  return undefined;
}

function readReserve(fields: MapReader, before: TaskClass['reserve']): TaskClass['reserve'] {
  const memoryBytes = fields.bytes('memory_bytes') ?? before.memoryBytes;
  const reserve = { cpu: fields.number('cpu') ?? before.cpu, memoryBytes: Number(memoryBytes) };
  if (reserve.cpu < 0) fields.report('cpu', `must be 0 or more, not ${reserve.cpu}`);
  fields.finish();
  return reserve;
}

function readEnvironments(fields: MapReader): string[] | undefined {
  const environments = fields.texts('environments');
  for (const environment of environments ?? []) {
    if (ENVIRONMENTS.includes(environment)) continue;
    fields.report('environments', `there is no environment "${environment}"; there are ${ENVIRONMENTS.join(', ')}`);
  }
  if (environments?.length === 0) fields.report('environments', 'must name at least one environment');
  return environments;
}

function readSelector(fields: MapReader): string | undefined {
  const selector = fields.text('agent_selector');
  if (selector === undefined) return undefined;
  try {
    parseLabelSelector(selector, 'agent_selector');
    return selector;
  } catch (error) {
    fields.report('agent_selector', messageOf(error).replace(/^agent_selector: /, ''));
    return undefined;
  }
}
