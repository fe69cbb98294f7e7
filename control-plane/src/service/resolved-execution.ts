import { createHash } from 'node:crypto';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { Duration } from '@bufbuild/protobuf/wkt';
import { HarrierError, type LabelSelector, parseLabelSelector } from '@harrier/shared';
import { Isolation_Level as IsolationLevel } from '@harrier/shared/gen/agent';
import {
  type Code,
  type Command,
  type CreateExecutionRequest,
  CreateExecutionRequestSchema,
  type Image,
} from '@harrier/shared/gen/execution';
import { type AttemptRef, type ServerMessage, ServerMessageSchema } from '@harrier/shared/gen/link';
import {
  type Environment,
  EnvironmentSchema,
  type Limits,
  type Module,
  type RetryPolicy,
  type SlurmJob,
} from '@harrier/shared/gen/module';
import type { TaskClass } from '@harrier/shared/task-classes-file';
import type { Requirement } from '../scheduler/requirement.ts';
import { isCpuUnsaid, limitsOf } from './attempt-limits.ts';
import { askedGpus, checkConcurrency, checkHardware, concurrencyOf, demandOf, slurmJobOf } from './demand.ts';
import { maxDisconnectMs } from './disconnect-policy.ts';
import { durationOf, millisecondsOf } from './duration.ts';
import type { StoredModule } from './module-service.ts';
import { Refusals } from './refusals.ts';
import { STORED } from './storable.ts';
import { checkAllowed, checkSlurmAllowed, DEFAULT_TASK_CLASS, type TaskClasses } from './task-class.ts';
import { warmKeyOf } from './warm-key.ts';

const DEFAULT_HANDLER = 'handler';
const EXTENSIONS: Readonly<Record<string, string>> = { python: 'py', nodejs: 'js', go: 'go' };
const INLINE = create(EnvironmentSchema, { kind: { case: 'inline', value: {} } });

/** What to run: exactly one of these. */
export type Program =
  | { kind: 'module'; stored: StoredModule }
  | { kind: 'code'; code: Code }
  | { kind: 'command'; command: Command }
  | { kind: 'image'; image: Image };

/** A request with everything that its module and the defaults add. */
export interface ResolvedExecution {
  id: string;
  tenantId: string;
  program: Program;
  /** The request without its input: what is stored. */
  request: CreateExecutionRequest;
  inputJson: string;
  /** Answer with `output_json`. */
  jsonText: boolean;
  taskClass: string;
  /** Undefined: the cluster ends it. */
  timeoutMs: number | undefined;
  /** Present: it is a job of Slurm. */
  slurm: SlurmJob | undefined;
  limits: Limits;
  /** Its processors are the most of its class: a host may have fewer, and gives it all of them then. */
  isCpuUnsaid: boolean;
  priority: number;
  retryPolicy: RetryPolicy | undefined;
  requirement: Requirement;
  /** Agents that have sent it back; the requirement names all of them. */
  refusals: Refusals;
}

/**
 * Puts request, module, class and defaults together. It refuses nothing that was accepted once: `checkExecution` does, for what
 * comes.
 * @throws HarrierError invalid_argument for what cannot be read at all
 */
export function resolveExecution(given: {
  id: string;
  tenantId: string;
  request: CreateExecutionRequest;
  module: StoredModule | undefined;
  classes: TaskClasses;
  inputJson: string;
  jsonText: boolean;
}): ResolvedExecution {
  const { request, module: stored, tenantId } = given;
  const module = stored?.module;
  const taskClass = request.taskClass || module?.taskClass || DEFAULT_TASK_CLASS;
  const classOf = classIn(given.classes, taskClass);
  const program = programOf(request, stored);
  const environment = environmentOf(program);
  const slurm = slurmJobOf(request.slurm, module?.slurm, classOf);
  const written = [request.limits, module?.limits];
  const gpus = askedGpus(written, classOf);
  const timeoutMs = timeoutOf(request.timeout ?? module?.timeout, slurm, classOf);
  const { maxTimeoutMs } = classOf;
  if (slurm !== undefined && timeoutMs === undefined && maxTimeoutMs !== undefined) {
    // What of the partition's limit is beyond the most is not for this class.
    slurm.time ??= durationOf(maxTimeoutMs);
  }
  const refusals = new Refusals();
  return {
    id: given.id,
    tenantId,
    program,
    request,
    inputJson: given.inputJson,
    jsonText: given.jsonText,
    taskClass,
    timeoutMs,
    slurm,
    limits: limitsOf(written, classOf, gpus.count, slurm !== undefined),
    isCpuUnsaid: isCpuUnsaid(written, classOf),
    priority: request.priority + classOf.priority,
    retryPolicy: request.retryPolicy ?? module?.retryPolicy,
    requirement: {
      tenantId,
      environment: supportNeeded(environment, languageOf(program)),
      selectors: selectorsOf(request, module, classOf),
      refusals: refusals.all,
      demand: demandOf(written, gpus, slurm, classOf),
      isolation: classOf.sandboxOnly ? IsolationLevel.SANDBOX : undefined,
      taskClass,
      timeoutMs,
      warmKey: warmKeyOf(environment, module?.reuse === true ? stored?.id : undefined),
      limit: concurrencyOf(request.concurrency, module?.concurrency, module?.name),
    },
    refusals,
  };
}

/** A class that a stored execution names may have been taken out of the configuration. */
function classIn(classes: TaskClasses, name: string): TaskClass {
  const found = classes.get(name) ?? classes.get(DEFAULT_TASK_CLASS);
  if (found === undefined) throw new Error(`there is no task class "${DEFAULT_TASK_CLASS}"`);
  return found;
}

/** @throws HarrierError invalid_argument for what its class does not allow, and for what no agent could ever have */
export function checkExecution(resolved: ResolvedExecution, taskClass: TaskClass): void {
  const { request, program, slurm } = resolved;
  const module = moduleOf(program);
  const kind = environmentOf(program).kind.case ?? 'inline';
  const timeout = request.timeout ?? module?.timeout;
  for (const limits of [request.limits, module?.limits]) {
    const timeoutMs = timeout === undefined ? undefined : millisecondsOf(timeout);
    checkAllowed(taskClass, { timeoutMs, limits, environment: kind });
  }
  checkSlurmAllowed(taskClass, slurm);
  checkConcurrency(request.concurrency, module);
  const gpus = askedGpus([request.limits, module?.limits], taskClass);
  checkHardware(gpus, slurm, { environment: kind, reuse: module?.reuse ?? false });
}

/** A job of Slurm has the limit of its partition where nobody has said otherwise. */
function timeoutOf(given: Duration | undefined, slurm: SlurmJob | undefined, taskClass: TaskClass): number | undefined {
  if (given !== undefined) return millisecondsOf(given);
  return slurm !== undefined && taskClass.slurm === undefined ? undefined : taskClass.timeoutMs;
}

function selectorsOf(
  request: CreateExecutionRequest,
  module: Module | undefined,
  taskClass: TaskClass,
): LabelSelector[] {
  const selectors: LabelSelector[] = [];
  const add = (text: string, field: string) => {
    if (text !== '') selectors.push(parseLabelSelector(text, field));
  };
  add(taskClass.agentSelector, 'task_class.agent_selector');
  add(module?.agentSelector ?? '', 'module.agent_selector');
  add(request.agentSelector, 'agent_selector');
  return selectors;
}

function programOf(request: CreateExecutionRequest, stored: StoredModule | undefined): Program {
  if (stored !== undefined) return { kind: 'module', stored };
  if (request.target.case === 'code') return { kind: 'code', code: request.target.value };
  if (request.target.case === 'command') return { kind: 'command', command: request.target.value };
  if (request.target.case === 'image') return { kind: 'image', image: request.target.value };
  throw new HarrierError('invalid_argument', 'one of module, code, command and image is required', { field: 'module' });
}

/** What it runs in. */
export function environmentOf(program: Program): Environment {
  switch (program.kind) {
    case 'module':
      return program.stored.module.environment ?? INLINE;
    case 'code':
      return program.code.environment ?? INLINE;
    case 'command':
      return program.command.environment ?? INLINE;
    case 'image': {
      const { image, pull } = program.image;
      return create(EnvironmentSchema, { kind: { case: 'docker', value: { image, pull } } });
    }
  }
}

/** What an agent must be able to prepare: a kind of environment, or `nodejs` for code in the sandbox that is not Python. */
export function supportNeeded(environment: Environment, language: string): string {
  const kind = environment.kind.case ?? 'inline';
  return kind !== 'inline' || language === '' || language === 'python' ? kind : language;
}

function languageOf(program: Program): string {
  if (program.kind === 'module') return program.stored.module.language;
  return program.kind === 'code' ? program.code.language : '';
}

/** What is stored of a request: all but the input. */
export function encodeRequest(request: CreateExecutionRequest): Buffer {
  return Buffer.from(toBinary(CreateExecutionRequestSchema, request));
}

export function decodeRequest(bytes: Uint8Array): CreateExecutionRequest {
  return fromBinary(CreateExecutionRequestSchema, bytes, STORED);
}

/**
 * The message that gives an attempt to an agent, with the GPUs that were chosen for it.
 * @param cpuMilli what the agent has for executions, in thousandths of a processor
 */
export function assignmentMessage(
  resolved: ResolvedExecution,
  attempt: number,
  gpuUuids: readonly string[] = [],
  cpuMilli = Number.POSITIVE_INFINITY,
): ServerMessage {
  const { timeoutMs, slurm } = resolved;
  const limits = limitsOn(resolved, cpuMilli);
  const ref = { executionId: resolved.id, attempt } as AttemptRef;
  return create(ServerMessageSchema, {
    message: {
      case: 'assignment',
      value: {
        ref,
        tenant: resolved.tenantId,
        program: assignedProgram(resolved, limits),
        inputJson: Buffer.from(resolved.inputJson),
        ...(timeoutMs === undefined ? {} : { timeout: durationOf(timeoutMs) }),
        ...(slurm === undefined ? {} : { slurm }),
        gpuUuids: [...gpuUuids],
        limits,
        env: resolved.request.env,
        taskClass: resolved.taskClass,
        environment: environmentOf(resolved.program),
        decidedLocks: resolved.program.kind === 'module' ? resolved.program.stored.locks : {},
        maxDisconnect: durationOf(runsOnMs(resolved)),
        traceParent: resolved.request.traceParent,
        ...schemasOf(resolved.program),
      },
    },
  });
}

/** How long after the end of its agent's lease it may run on. */
export function runsOnMs({ program, slurm }: Pick<ResolvedExecution, 'program' | 'slurm'>): number {
  return maxDisconnectMs(moduleOf(program), slurm !== undefined);
}

export function moduleOf(program: Program): Module | undefined {
  return program.kind === 'module' ? program.stored.module : undefined;
}

/** What the container protocol tells the code of its schemas. */
function schemasOf(program: Program): { inputSchemaJson?: string; outputSchemaJson?: string } {
  if (program.kind !== 'module') return {};
  const { inputSchema, outputSchema, language } = program.stored.module;
  if (language === 'python') return {};
  return {
    inputSchemaJson: inputSchema === undefined ? '' : JSON.stringify(inputSchema),
    outputSchemaJson: outputSchema === undefined ? '' : JSON.stringify(outputSchema),
  };
}

/** An agent refuses who asks for more processors than it has; who asks for none in particular has not. */
function limitsOn({ limits, isCpuUnsaid }: ResolvedExecution, cpuMilli: number): Limits {
  const cpu = cpuMilli / 1000;
  return isCpuUnsaid && limits.cpu > cpu ? { ...limits, cpu } : limits;
}

function assignedProgram({ program, request }: ResolvedExecution, limits: Limits) {
  switch (program.kind) {
    case 'module': {
      const { module } = program.stored;
      const { code: source, handler, language } = module;
      const filename = `${module.name}-${module.version}.${EXTENSIONS[language] ?? 'py'}`;
      if (language !== 'python') return { case: 'script' as const, value: { language, source, handler, filename } };
      const reuseKey = module.reuse ? reuseKeyOf(module, limits, request.env) : '';
      const value = { source, handler, filename, reuseKey, preload: module.preload };
      return { case: 'python' as const, value };
    }
    case 'code': {
      const { source, language } = program.code;
      const handler = program.code.handler || DEFAULT_HANDLER;
      const filename = `code.${EXTENSIONS[language] ?? 'py'}`;
      return language === '' || language === 'python'
        ? { case: 'python' as const, value: { source, handler, filename, reuseKey: '' } }
        : { case: 'script' as const, value: { language, source, handler, filename } };
    }
    case 'command':
      return { case: 'command' as const, value: program.command };
    case 'image':
      return { case: 'image' as const, value: program.image };
  }
}

/** An interpreter keeps the limits and variables that it was started with: only calls with the same ones may share it. */
function reuseKeyOf(module: Module, limits: Limits, env: Readonly<Record<string, string>>): string {
  const { memoryBytes, tmpBytes, processes, cpu, network, egressHosts } = limits;
  const parts = [module.digest, memoryBytes, tmpBytes, processes, cpu, network, ...egressHosts];
  const variables = Object.entries(env).toSorted(([a], [b]) => (a < b ? -1 : 1));
  if (variables.length > 0) parts.push(createHash('sha256').update(JSON.stringify(variables)).digest('hex'));
  return parts.join(' ');
}
