import { createHash } from 'node:crypto';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { HarrierError, type LabelSelector, parseLabelSelector } from '@harrier/shared';
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
  LimitsSchema,
  type Module,
  Limits_Network as Network,
  type RetryPolicy,
} from '@harrier/shared/gen/module';
import type { Requirement } from '../scheduler/place.ts';
import { maxDisconnectMs } from './disconnect-policy.ts';
import { durationOf, millisecondsOf } from './duration.ts';
import type { StoredModule } from './module-service.ts';
import { taskClassTimeoutMs } from './task-class.ts';

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
  timeoutMs: number;
  limits: Limits;
  retryPolicy: RetryPolicy | undefined;
  requirement: Requirement & { refusals: Map<string, string> };
}

/** Puts request, module and defaults together. @throws HarrierError invalid_argument */
export function resolveExecution(given: {
  id: string;
  tenantId: string;
  request: CreateExecutionRequest;
  module: StoredModule | undefined;
  inputJson: string;
  jsonText: boolean;
}): ResolvedExecution {
  const { request, module: stored } = given;
  const module = stored?.module;
  const taskClass = request.taskClass || module?.taskClass || 'cpu_short';
  const classTimeoutMs = taskClassTimeoutMs(taskClass, 'task_class');
  const timeout = request.timeout ?? module?.timeout;
  const selectors: LabelSelector[] = [];
  if (module !== undefined && module.agentSelector !== '') {
    selectors.push(parseLabelSelector(module.agentSelector, 'module.agent_selector'));
  }
  if (request.agentSelector !== '') selectors.push(parseLabelSelector(request.agentSelector, 'agent_selector'));
  const program = programOf(request, stored);
  return {
    id: given.id,
    tenantId: given.tenantId,
    program,
    request,
    inputJson: given.inputJson,
    jsonText: given.jsonText,
    taskClass,
    timeoutMs: timeout === undefined ? classTimeoutMs : millisecondsOf(timeout),
    limits: mergeLimits(request.limits, module?.limits),
    retryPolicy: request.retryPolicy ?? module?.retryPolicy,
    requirement: {
      tenantId: given.tenantId,
      environment: supportNeeded(environmentOf(program), languageOf(program)),
      selectors,
      refusals: new Map(),
    },
  };
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

/** The first that is set: request, module, default. The hosts go with the network that was set. */
function mergeLimits(request: Limits | undefined, module: Limits | undefined): Limits {
  const network = request?.network ? request : module;
  return create(LimitsSchema, {
    cpu: request?.cpu || module?.cpu || 0,
    memoryBytes: request?.memoryBytes || module?.memoryBytes || DEFAULT_LIMITS.memoryBytes,
    stdoutBytes: request?.stdoutBytes || module?.stdoutBytes || DEFAULT_LIMITS.stdoutBytes,
    stderrBytes: request?.stderrBytes || module?.stderrBytes || DEFAULT_LIMITS.stderrBytes,
    outputBytes: request?.outputBytes || module?.outputBytes || DEFAULT_LIMITS.outputBytes,
    tmpBytes: request?.tmpBytes || module?.tmpBytes || DEFAULT_LIMITS.tmpBytes,
    processes: request?.processes || module?.processes || DEFAULT_LIMITS.processes,
    network: network?.network || DEFAULT_LIMITS.network,
    egressHosts: network?.egressHosts ?? [],
  });
}

/** What is stored of a request: all but the input. */
export function encodeRequest(request: CreateExecutionRequest): Buffer {
  return Buffer.from(toBinary(CreateExecutionRequestSchema, request));
}

export function decodeRequest(bytes: Uint8Array): CreateExecutionRequest {
  return fromBinary(CreateExecutionRequestSchema, bytes);
}

/** The message that gives an attempt to an agent. */
export function assignmentMessage(resolved: ResolvedExecution, attempt: number): ServerMessage {
  const ref = { executionId: resolved.id, attempt } as AttemptRef;
  return create(ServerMessageSchema, {
    message: {
      case: 'assignment',
      value: {
        ref,
        tenant: resolved.tenantId,
        program: assignedProgram(resolved),
        inputJson: Buffer.from(resolved.inputJson),
        timeout: durationOf(resolved.timeoutMs),
        limits: resolved.limits,
        env: resolved.request.env,
        taskClass: resolved.taskClass,
        environment: environmentOf(resolved.program),
        decidedLocks: resolved.program.kind === 'module' ? resolved.program.stored.locks : {},
        maxDisconnect: durationOf(maxDisconnectMs(moduleOf(resolved.program))),
        ...schemasOf(resolved.program),
      },
    },
  });
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

function assignedProgram({ program, limits, request }: ResolvedExecution) {
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
