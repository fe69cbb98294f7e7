import { create, type JsonObject } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { ExecutionError_Code as Code } from '../gen/harrier/v1/error_pb.ts';
import {
  type Module,
  ModuleSchema,
  Module_OnDisconnect as OnDisconnect,
  type RetryPolicy,
  RetryPolicySchema,
} from '../gen/harrier/v1/module_pb.ts';
import type { MapReader } from '../yaml-file/map-reader.ts';
import type { Position } from '../yaml-file/problem.ts';
import { type FileReference, readEnvironment } from './read-environment.ts';
import { readConcurrency, readLimits, readSlurm } from './read-limits.ts';

/** A module as a file tells it. */
export interface FileModule {
  /** Without what is in the files that it names. */
  module: Module;
  /** File or directory of the code as written, relative to the modules file; undefined when the code stands in it. */
  codePath: string | undefined;
  /** The other files that complete the module. */
  files: FileReference[];
  /** It names an environment without settings. */
  bareEnvironment: boolean;
  /** For people: `modules[1]`. */
  path: string;
  /** Something of it could not be read, and is absent from `module`. */
  incomplete: boolean;
  /** Where a field of the message stands, by its path in the schema, for example `retry_policy.max_attempts`. */
  positionOf(field: string): Position;
  /** How the file calls a field of the message, for people: `modules[1].retry.max_attempts`. */
  nameOf(field: string): string;
}

/** Names in the file where they are not those of the schema. */
const FILE_NAMES: Readonly<Record<string, string>> = { environment: 'env', retry_policy: 'retry' };
const ON_DISCONNECT = { stop: OnDisconnect.STOP, keep: OnDisconnect.KEEP } as const;

/** Reads one entry of `modules`. Problems go to the reader; what has one is left out. */
export function readModule(fields: MapReader): FileModule {
  const module = create(ModuleSchema, {
    name: required(fields, 'name'),
    version: required(fields, 'version'),
    description: fields.text('description') ?? '',
    tags: fields.texts('tags') ?? [],
    language: fields.text('language') ?? '',
    code: fields.text('code') ?? '',
    handler: fields.text('handler') ?? '',
    taskClass: fields.text('task_class') ?? '',
    agentSelector: fields.text('agent_selector') ?? '',
    reuse: fields.flag('reuse') ?? false,
  });
  const environment = readEnvironment(fields);
  if (environment !== undefined) module.environment = environment.environment;
  module.preload = fields.texts('preload') ?? [];
  const timeoutMs = fields.durationMs('timeout');
  if (timeoutMs !== undefined) module.timeout = durationFromMs(timeoutMs);
  module.onDisconnect = fields.oneOf('on_disconnect', ON_DISCONNECT) ?? OnDisconnect.ON_DISCONNECT_UNSPECIFIED;
  const maxDisconnectMs = fields.durationMs('max_disconnect');
  if (maxDisconnectMs !== undefined) module.maxDisconnect = durationFromMs(maxDisconnectMs);
  const input = fields.document('input_schema');
  if (input !== undefined) module.inputSchema = input as JsonObject;
  const output = fields.document('output_schema');
  if (output !== undefined) module.outputSchema = output as JsonObject;

  const limits = fields.map('limits');
  if (limits !== undefined) module.limits = readLimits(limits);
  const retry = fields.map('retry');
  if (retry !== undefined) module.retryPolicy = readRetry(retry);
  const slurm = fields.map('slurm');
  if (slurm !== undefined) module.slurm = readSlurm(slurm);
  const concurrency = fields.map('concurrency');
  if (concurrency !== undefined) module.concurrency = readConcurrency(concurrency);
  const codePath = fields.text('path');
  const inFile = (field: string) => (field === 'code' && codePath !== undefined ? 'path' : field);
  if (fields.has('code') === fields.has('path')) {
    fields.report('code', 'exactly one of `code` and `path` says what runs');
  }
  fields.finish();
  return {
    module,
    codePath,
    files: environment?.files ?? [],
    bareEnvironment: environment?.bare ?? false,
    path: fields.path,
    incomplete: false,
    positionOf: (field) => locate(inFile(field), { fields, limits, retry, slurm, concurrency }),
    nameOf: (field) => nameOf(fields.path, inFile(field)),
  };
}

function required(fields: MapReader, name: string): string {
  if (!fields.has(name)) fields.report(name, 'is missing');
  return fields.text(name) ?? '';
}

function readRetry(fields: MapReader): RetryPolicy {
  const retry = create(RetryPolicySchema, {
    maxAttempts: fields.integer('max_attempts') ?? 0,
    backoffMultiplier: fields.number('backoff_multiplier') ?? 0,
    codes: (fields.texts('codes') ?? []).flatMap((name) => {
      const code = Object.entries(Code).find(([known, value]) => known === name && value !== 0)?.[1];
      if (code !== undefined) return [code];
      const known = Object.keys(Code).slice(1).join(', ');
      fields.report('codes', `there is no error code "${name}"; there are ${known}`);
      return [];
    }),
  });
  const initialMs = fields.durationMs('initial_backoff');
  if (initialMs !== undefined) retry.initialBackoff = durationFromMs(initialMs);
  const maxMs = fields.durationMs('max_backoff');
  if (maxMs !== undefined) retry.maxBackoff = durationFromMs(maxMs);
  const jitter = fields.number('jitter_ratio');
  if (jitter !== undefined) retry.jitterRatio = jitter;
  fields.finish();
  return retry;
}

function nameOf(path: string, field: string): string {
  if (field === '') return path;
  return `${path}.${field.replace(/^\w+/, (first) => FILE_NAMES[first] ?? first)}`;
}

interface Readers {
  fields: MapReader;
  limits: MapReader | undefined;
  retry: MapReader | undefined;
  slurm: MapReader | undefined;
  concurrency: MapReader | undefined;
}

function locate(field: string, { fields, ...maps }: Readers): Position {
  const [first = '', second = ''] = field.split(/[.[]/);
  const name = FILE_NAMES[first] ?? first;
  const below = Object.hasOwn(maps, name) ? maps[name as keyof typeof maps] : undefined;
  if (below !== undefined && second !== '') return below.positionOf(second);
  return fields.positionOf(name);
}
