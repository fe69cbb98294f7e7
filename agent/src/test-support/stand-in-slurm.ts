import { appendFileSync, existsSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { create } from '@bufbuild/protobuf';
import { type Assignment, AssignmentSchema } from '@harrier/shared/gen/link';
import { onTestFinished } from 'vitest';
import type { AttemptEnd, ExecutorEvents, HeldByExecutor, StartRefusal } from '../executor/executor.ts';
import { SlurmExecutor, type SlurmExecutorOptions } from '../executor/slurm-executor.ts';
import { encodeHeader } from '../launcher/frame-codec.ts';
import type { ClusterJob } from '../slurm/job-list.ts';
import { SharedDirectory } from '../slurm/shared-directory.ts';
import type { Look, Submission } from '../slurm/slurm-cluster.ts';
import { silentLogger } from './silent-logger.ts';
import { tempDir } from './temp-dir.ts';

type Cluster = Omit<SlurmExecutorOptions['cluster'], 'submit'> & {
  /** When a submission has its turn; absent: at once. */
  turn: Promise<void>;
  submit: (args: readonly string[], script: string) => Promise<Submission>;
};

/** What it runs. */
export const ASSIGNMENT: Assignment = create(AssignmentSchema, {
  ref: { executionId: 'e', attempt: 1 },
  tenant: 'acme',
  taskClass: 'gpu_slurm',
  traceParent: '00-1-2-01',
  program: { case: 'python', value: { source: 'handler = dict' } },
});

/** An executor on a cluster that answers as the test says, and what it has told. Its one job is that of attempt 1 of `e`. */
export class StandInSlurm {
  readonly dataDir: string;
  readonly root: string;
  readonly shared: SharedDirectory;
  readonly executor: SlurmExecutor;
  /** What the agent keeps of the attempt. */
  readonly kept: string;
  /** What it shares with the job. */
  readonly job: string;
  readonly steps: string[] = [];
  readonly ends: AttemptEnd[] = [];
  /** What was given back, or was tried to. */
  readonly refusals: StartRefusal['error'][] = [];
  readonly recovered: (readonly HeldByExecutor[])[] = [];
  /** Whether the control plane can be told that an attempt is given back. */
  linked: boolean;
  /** Whether the control plane stores output. */
  stores = true;
  started = false;
  readonly #onLook: ((look: Look) => void)[] = [];
  #changed = Promise.withResolvers<void>();

  private constructor(cluster: Partial<Cluster>, dataDir: string, root: string, linked: boolean) {
    this.linked = linked;
    this.dataDir = dataDir;
    this.root = root;
    this.shared = new SharedDirectory(root, dataDir);
    this.kept = join(dataDir, 'slurm', 'attempts', 'e.1');
    this.job = this.shared.job('e.1').path;
    const { turn, submit = async () => ({ jobId: '7' }), ...rest } = cluster;
    this.executor = new SlurmExecutor({
      cluster: {
        submit: async (args, script, hindrance) => {
          await turn;
          const message = hindrance();
          return message === undefined ? await submit(args, script) : { failure: 'later', message };
        },
        find: async () => ({ jobId: undefined }),
        accounts: async () => new Map(),
        end: async () => undefined,
        onLook: (listener) => void this.#onLook.push(listener),
        hurry: () => {},
        ...rest,
      },
      ...{ shared: this.shared, dataDir, partition: '', python: 'python3', flags: [], maxJobs: 5, indexHosts: [] },
      ...{ gpuDevRoot: '/dev' },
      onRefused: (_, error) => {
        this.refusals.push(error);
        this.#tell();
        return this.linked;
      },
      ...{ unavailable: () => undefined, events: this.#events(), logger: silentLogger() },
    });
  }

  /** Opens it; it is closed after the test. */
  static async open(
    cluster: Partial<Cluster> = {},
    dataDir = tempDir(),
    root = tempDir(),
    linked = true,
  ): Promise<StandInSlurm> {
    const slurm = new StandInSlurm(cluster, dataDir, root, linked);
    await slurm.shared.open(false);
    slurm.executor.open();
    onTestFinished(() => slurm.executor.close());
    return slurm;
  }

  start(): void {
    const refusal = this.executor.start(ASSIGNMENT, { start: undefined, release: () => {} }, new Uint8Array(0));
    if (refusal !== undefined) throw new Error(refusal.error.message);
  }

  /**
   * What the controller says of the job.
   * @param state undefined: it has forgotten it
   * @param askedMs when it was asked
   */
  look(state: string | undefined, askedMs = performance.now()): void {
    const jobs = new Map(state === undefined ? [] : [['7', clusterJob(state)]]);
    for (const listener of this.#onLook) listener({ jobs, askedMs });
  }

  /** The controller is asked again and again, until something fits. */
  async looks(state: string | undefined, fits: () => boolean): Promise<void> {
    while (!fits()) {
      this.look(state);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** What a job leaves first. */
  writeStart(): void {
    writeFileSync(join(this.job, 'taken'), '{"job":"7","node":"n1"}');
    appendFileSync(join(this.job, 'records'), record({ type: 'started', execution: 'e', attempt: 1 }, ''));
  }

  /** Everything that a job leaves which prints `hi` and succeeds. */
  writeResult(directory = this.job): void {
    const names = { execution: 'e', attempt: 1 };
    const streams = { stdout: 3, stderr: 0, stdout_truncated: false, stderr_truncated: false };
    const end = { outcome: 'succeeded', error: null, run_ms: 1, exit_code: 0, signal: null, usage: null, ...streams };
    writeFileSync(join(directory, 'taken'), '{"job":"7","node":"n1"}');
    // As a new file: who has just opened the former one does not see it.
    const path = join(directory, 'records');
    writeFileSync(
      `${path}.new`,
      Buffer.concat([
        record({ type: 'started', ...names }, ''),
        record({ type: 'output', ...names, stream: 'stdout', offset: 0 }, 'hi\n'),
        record({ type: 'finished', ...names, ...end }, '{"ok":1}'),
      ]),
    );
    renameSync(`${path}.new`, path);
  }

  /** The job is submitted, and the agent knows its number. */
  async submitted(): Promise<void> {
    while (!existsSync(join(this.kept, 'job.json'))) await new Promise((resolve) => setImmediate(resolve));
  }

  /** Resolves when something that was told fits. */
  async told(fits: () => boolean): Promise<void> {
    while (!fits()) await this.#changed.promise;
  }

  #tell(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  #events(): ExecutorEvents {
    return {
      onStarted: () => {
        this.started = true;
        this.#tell();
      },
      onRecovered: (_, held) => {
        this.recovered.push(held);
        this.#tell();
      },
      onLost: () => {},
      onOutput: (_, stream, offset, data) => {
        if (!this.stores) return;
        this.executor.acknowledgeOutput(
          { executionId: 'e', attempt: 1 },
          stream === 'stdout' ? offset + data.length : 0,
          stream === 'stderr' ? offset + data.length : 0,
        );
      },
      onProgress: (_, __, step) => {
        this.steps.push(step);
        this.#tell();
      },
      onFinished: (_, end) => {
        this.ends.push(end);
        this.#tell();
      },
    };
  }
}

/** The job as Slurm tells of it. */
export function clusterJob(state: string): ClusterJob {
  return { id: '7', state, reason: '', name: 'e.1', restarts: 0 };
}

/** As `agent/runtime/job_records.py` writes it. */
function record(header: Parameters<typeof encodeHeader>[0], text: string): Buffer {
  const body = Buffer.from(text);
  const frame = Buffer.concat([encodeHeader(header, body.length), body]);
  const checksum = Buffer.alloc(4);
  checksum.writeUInt32BE(crc32(frame));
  return Buffer.concat([checksum, frame]);
}
