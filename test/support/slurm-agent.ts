import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { createLogger } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { type Assignment, AssignmentSchema } from '@harrier/shared/gen/link';
import { onTestFinished } from 'vitest';
import type { AttemptEnd, AttemptKey, ExecutorEvents, StartRefusal } from '../../agent/src/executor/executor.ts';
import { createSlurmParts, type SlurmParts } from '../../agent/src/slurm-parts.ts';
import type { TestSlurm } from './slurm.ts';
import { until } from './wait.ts';
import { directory } from './workspace.ts';

type AssignmentFields = Omit<MessageInitShape<typeof AssignmentSchema>, '$typeName' | '$unknown'>;
type Held = AttemptKey & { finished: boolean };

const MIB = 1024n * 1024n;
const UNPREPARED = { start: undefined, release: () => {} };

export interface SlurmAgentOptions {
  /** Of a former agent. */
  dataDir?: string;
  shared?: string;
  /** Programs here stand before those of Slurm. */
  programs?: string;
  maxJobs?: number;
  /** Where the node has its device nodes. */
  gpuDevRoot?: string;
}

/** Everything that the executor has told, with the log as the control plane would store it. */
class Told implements ExecutorEvents {
  readonly started = new Set<string>();
  readonly logs = new Map<string, Buffer>();
  readonly ends = new Map<string, AttemptEnd>();
  readonly steps = new Map<string, string[]>();
  readonly recovered: (readonly Held[])[] = [];
  parts: SlurmParts | undefined;

  onStarted({ executionId }: AttemptKey): void {
    this.started.add(executionId);
  }

  onOutput(key: AttemptKey, stream: 'stdout' | 'stderr', offset: number, data: Uint8Array): void {
    const name = `${key.executionId} ${stream}`;
    const before = this.logs.get(name) ?? Buffer.alloc(0);
    if (offset > before.length) throw new Error(`a gap in ${name}: ${before.length} to ${offset}`);
    this.logs.set(name, Buffer.concat([before.subarray(0, offset), data]));
    const length = (of: string) => this.logs.get(`${key.executionId} ${of}`)?.length ?? 0;
    // As over a link: never from within the call.
    setImmediate(() => this.parts?.executor.acknowledgeOutput(key, length('stdout'), length('stderr')));
  }

  onProgress({ executionId }: AttemptKey, _percent: number, step: string): void {
    this.steps.set(executionId, [...(this.steps.get(executionId) ?? []), step]);
  }

  onFinished({ executionId }: AttemptKey, end: AttemptEnd): void {
    this.ends.set(executionId, end);
  }

  onRecovered(_: unknown, held: readonly Held[]): void {
    this.recovered.push(held);
  }

  onLost(): void {}
}

/** The part of an agent that has to do with Slurm, in this process. */
export class SlurmAgent {
  readonly dataDir: string;
  readonly shared: string;
  readonly told = new Told();
  readonly parts: SlurmParts;
  /** When the lease is over, by `performance.now()`. */
  #leaseEndMs = Number.POSITIVE_INFINITY;

  private constructor(slurm: TestSlurm, options: SlurmAgentOptions) {
    this.dataDir = options.dataDir ?? directory('sa');
    this.shared = options.shared ?? directory('sh');
    const path = process.env.PATH ?? '/usr/bin:/bin';
    this.parts = createSlurmParts({
      settings: {
        directory: this.shared,
        partition: '',
        maxJobs: options.maxJobs ?? 100,
        python: 'python3',
        configuration: slurm.configuration,
      },
      dataDir: this.dataDir,
      gpuDevRoot: options.gpuDevRoot ?? '/dev',
      searchPath: options.programs === undefined ? path : `${options.programs}:${path}`,
      allowUnsandboxed: false,
      indexHosts: [],
      createProviders: async () => ({ providers: [], close: async () => {} }),
      events: this.told,
      onRefused: () => false,
      lease: () => ({
        leftMs: () => {
          const leftMs = this.#leaseEndMs - performance.now();
          return Number.isFinite(leftMs) ? Math.max(0, leftMs) : null;
        },
        graceMs: 500,
      }),
      onSupportChange: () => {},
      logger: createLogger({ name: 'test', level: 'silent' }),
    });
    this.told.parts = this.parts;
  }

  /** Starts one and waits until it can submit; it is closed after the test. */
  static async start(slurm: TestSlurm, options: SlurmAgentOptions = {}): Promise<SlurmAgent> {
    const agent = await SlurmAgent.open(slurm, options);
    onTestFinished(() => agent.close());
    return agent;
  }

  /** Starts one, which the caller closes. */
  static async open(slurm: TestSlurm, options: SlurmAgentOptions = {}): Promise<SlurmAgent> {
    const agent = new SlurmAgent(slurm, options);
    agent.parts.open();
    await until('Slurm to be available', () => agent.parts.unavailable() === undefined, {
      seen: () => agent.parts.unavailable(),
    });
    return agent;
  }

  /** From now on nothing renews the lease, which holds for a while yet. */
  endLeaseIn(ms: number): void {
    this.#leaseEndMs = performance.now() + ms;
    this.parts.leaseChanged();
  }

  /** Leaves everything as an agent that has crashed does. */
  async close(): Promise<void> {
    await this.parts.close();
  }

  start(executionId: string, fields: AssignmentFields): StartRefusal | undefined {
    return this.parts.executor.start(assignment(executionId, fields), UNPREPARED, new Uint8Array(0));
  }

  /** Runs to the end and forgets it. */
  async run(executionId: string, fields: AssignmentFields): Promise<RunResult> {
    const refused = this.start(executionId, fields);
    if (refused !== undefined) throw new Error(`refused: ${refused.error.message}`);
    const result = await this.end(executionId);
    this.parts.executor.forget({ executionId, attempt: 1 });
    return result;
  }

  /** Waits for the end of an attempt. */
  async end(executionId: string, deadlineMs?: number): Promise<RunResult> {
    const end = await until(`the end of ${executionId}`, () => this.told.ends.get(executionId), {
      ...(deadlineMs === undefined ? {} : { deadlineMs }),
      seen: () => [this.told.steps.get(executionId), String(this.log(executionId, 'stdout')).slice(-500)],
    });
    return {
      ...end,
      code: Object.entries(Code).find(([, value]) => value === end.error?.code)?.[0] ?? '',
      result: Buffer.from(end.output).toString(),
      stdout: this.log(executionId, 'stdout'),
      stderr: this.log(executionId, 'stderr'),
    };
  }

  log(executionId: string, stream: 'stdout' | 'stderr'): Buffer {
    return this.told.logs.get(`${executionId} ${stream}`) ?? Buffer.alloc(0);
  }

  async untilLogged(executionId: string, text: string): Promise<void> {
    await until(`"${text}" in the log of ${executionId}`, () => this.log(executionId, 'stdout').includes(text), {
      seen: () => [this.told.steps.get(executionId), this.told.ends.get(executionId)],
    });
  }
}

export interface RunResult extends AttemptEnd {
  /** Name of the error's code. */
  code: string;
  /** The output as text. */
  result: string;
  stdout: Buffer;
  stderr: Buffer;
}

/** An assignment with every limit set, as the control plane sends it. */
export function assignment(executionId: string, fields: AssignmentFields): Assignment {
  const defaults: AssignmentFields = {
    ref: { executionId, attempt: 1 },
    tenant: 'acme',
    inputJson: Buffer.from('{"n": 1.0}'),
    limits: {
      memoryBytes: 256n * MIB,
      stdoutBytes: 16n * MIB,
      stderrBytes: 16n * MIB,
      outputBytes: 8n * MIB,
      tmpBytes: 16n * MIB,
      processes: 64,
    },
    slurm: {},
  };
  return create(AssignmentSchema, { ...defaults, ...fields } as MessageInitShape<typeof AssignmentSchema>);
}

/** A handler in Python. */
export function python(source: string): AssignmentFields {
  return { program: { case: 'python', value: { source, handler: 'handler', filename: 'module.py' } } };
}
