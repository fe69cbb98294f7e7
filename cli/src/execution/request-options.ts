import { readFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { type Duration, durationFromMs } from '@bufbuild/protobuf/wkt';
import { messageOf, parseBytes, parseDurationMs } from '@harrier/shared';
import type { ExecuteStreamRequestSchema } from '@harrier/shared/gen/execution';
import { GpuRequirementSchema, type Limits, LimitsSchema, Limits_Network as Network } from '@harrier/shared/gen/module';
import { type Command, InvalidArgumentError } from 'commander';
import { addConnectionOptions, type ConnectionFlags } from '../connection/connection.ts';
import { CliError } from '../failure.ts';

const NETWORKS: Readonly<Record<string, Network>> = {
  none: Network.NONE,
  index: Network.INDEX,
  egress: Network.EGRESS,
  full: Network.FULL,
};
const NETWORK_NAMES = Object.keys(NETWORKS);

/** Flags of every command that starts an execution. */
export interface RequestFlags extends ConnectionFlags {
  input?: string;
  follow?: true;
  timeout?: Duration;
  memory?: bigint;
  cpu?: number;
  gpus?: number;
  gpuModel?: string;
  gpuMemory?: bigint;
  network?: Network;
  allowHost?: string[];
  label?: Record<string, string>;
  env?: Record<string, string>;
  selector?: string;
  taskClass?: string;
  priority?: number;
  idempotencyKey?: string;
}

type Target = NonNullable<MessageInitShape<typeof ExecuteStreamRequestSchema>['target']>;
export type RequestInit = MessageInitShape<typeof ExecuteStreamRequestSchema>;

export function addRequestOptions(command: Command): Command {
  command
    .option('-i, --input <json>', 'input: a JSON object, @FILE, or - for standard input (default {})')
    .option('-f, --follow', 'show what the code prints while it runs')
    .option('--timeout <duration>', 'longest run of one attempt, for example 90s or 5m', parseTimeout)
    .option('--memory <bytes>', 'memory of one attempt, for example 512MiB', parseMemory)
    .option('--cpu <cores>', 'processors of one attempt, for example 0.5', parseCpu)
    .option('--gpus <number>', 'whole GPUs that it has alone', parseInteger)
    .option('--gpu-model <name>', 'part of the name of each GPU, for example H100')
    .option('--gpu-memory <bytes>', 'memory that each GPU has at least, for example 40GiB', parseMemory)
    .option('--network <mode>', `network of the code: ${NETWORK_NAMES.join(', ')} (default none)`, parseNetwork)
    .option(
      '--allow-host <host>',
      'host that the code may reach, for example api.example.org:443; can be repeated',
      parseHost,
    )
    .option('-l, --label <key=value>', 'label to find the execution by, can be repeated', parsePair)
    .option('-e, --env <name=value>', 'environment variable of the code, can be repeated; not for secrets', parsePair)
    .option('--selector <labels>', 'agents that may run it, for example "zone=eu, !spot"')
    .option('--task-class <class>', 'cpu_short, cpu_long, gpu, gpu_slurm, or another one of the control plane')
    .option('--priority <number>', '-1000 to 1000, higher runs first', parseInteger)
    .option('--idempotency-key <key>', 'a second request with the same key answers the first execution');
  return addConnectionOptions(command);
}

/** @throws CliError when the input cannot be read */
export async function createRequest(target: Target, version: string, flags: RequestFlags): Promise<RequestInit> {
  return {
    target,
    version,
    inputForm: { case: 'inputJson', value: await readInput(flags.input ?? '{}') },
    ...(flags.timeout === undefined ? {} : { timeout: flags.timeout }),
    limits: limitsOf(flags),
    labels: flags.label ?? {},
    env: flags.env ?? {},
    agentSelector: flags.selector ?? '',
    taskClass: flags.taskClass ?? '',
    priority: flags.priority ?? 0,
    idempotencyKey: flags.idempotencyKey ?? '',
  };
}

/** Naming hosts asks for `egress`, unless another network is named. */
function limitsOf({ memory, cpu, gpus, gpuModel, gpuMemory, network, allowHost }: RequestFlags): Limits {
  const hosts = allowHost ?? [];
  const hasGpu = gpuModel !== undefined || gpuMemory !== undefined;
  const gpu = create(GpuRequirementSchema, { model: gpuModel ?? '', minMemoryBytes: gpuMemory ?? 0n });
  return create(LimitsSchema, {
    gpus: gpus ?? 0,
    ...(hasGpu ? { gpu } : {}),
    memoryBytes: memory ?? 0n,
    cpu: cpu ?? 0,
    network: network ?? (hosts.length > 0 ? Network.EGRESS : Network.NETWORK_UNSPECIFIED),
    egressHosts: hosts,
  });
}

/** @throws CliError when it cannot be read, or is not JSON */
export async function readInput(given: string): Promise<string> {
  const [source, json] = await inputText(given);
  try {
    JSON.parse(json);
  } catch (cause) {
    throw new CliError(`the input (${source}) is not JSON: ${messageOf(cause)}`, undefined, { cause });
  }
  return json;
}

async function inputText(given: string): Promise<[source: string, json: string]> {
  if (given === '-') return ['standard input', await text(process.stdin)];
  if (!given.startsWith('@')) return ['--input', given];
  const path = given.slice(1);
  return [path, await readText(path)];
}

/** @throws CliError */
export async function readText(path: string): Promise<string> {
  try {
    return path === '-' ? await text(process.stdin) : await readFile(path, 'utf8');
  } catch (cause) {
    throw new CliError(`${path} cannot be read: ${messageOf(cause)}`, undefined, { cause });
  }
}

function parseTimeout(value: string): Duration {
  const ms = parseDurationMs(value);
  if (ms === undefined) throw new InvalidArgumentError('Write a duration like 500ms, 90s, 5m or 2h.');
  return durationFromMs(ms);
}

function parseMemory(value: string): bigint {
  const bytes = parseBytes(value);
  if (bytes === undefined) throw new InvalidArgumentError('Write a size like 268435456, 512MiB or 2GiB.');
  return BigInt(bytes);
}

function parseCpu(value: string): number {
  const cores = Number(value);
  if (!(cores > 0)) throw new InvalidArgumentError('Write a number of processors like 2 or 0.5.');
  return cores;
}

function parseNetwork(value: string): Network {
  const network = NETWORKS[value];
  if (network === undefined) throw new InvalidArgumentError(`Write one of ${NETWORK_NAMES.join(', ')}.`);
  return network;
}

function parseHost(value: string, before: string[] = []): string[] {
  return [...before, value];
}

export function parseInteger(value: string): number {
  if (!/^[+-]?\d{1,15}$/.test(value)) throw new InvalidArgumentError('Write a whole number.');
  return Number(value);
}

function parsePair(value: string, before: Record<string, string> = {}): Record<string, string> {
  const [, key, content] = /^([^=]+)=(.*)$/s.exec(value) ?? [];
  if (key === undefined || content === undefined) throw new InvalidArgumentError('Write KEY=VALUE.');
  return { ...before, [key]: content };
}
