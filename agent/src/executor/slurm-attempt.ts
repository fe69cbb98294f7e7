import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { AttemptFiles, keptFacts, noteFacts } from '../docker/attempt-files.ts';
import type { OutputStream } from '../docker/stream-frames.ts';
import type { FinishedMessage } from '../launcher/messages.ts';
import type { JobDirectory } from '../slurm/job-directory.ts';
import type { ClusterJob } from '../slurm/job-list.ts';
import type { AttemptEnd, StartRefusal } from './executor.ts';
import type { LogFacts } from './log-facts.ts';
import { OutputSender } from './output-sender.ts';
import type { SlurmEnding } from './slurm-outcome.ts';

/** What must be known of an attempt when the agent was started again. */
export interface SlurmFacts extends LogFacts {
  /** Bytes of standard error that the preparation wrote: they come before those of the job. */
  preludeBytes: number;
}

/** How an attempt ended, as it is kept. */
type KeptEnd = Omit<AttemptEnd, 'output' | 'error' | 'exitCode'> & {
  error: AttemptEnd['error'] | null;
  exitCode: number | null;
  /** In base64: a hostile handler's bytes need not be text. */
  output: string;
};

/** That an attempt was told to end, as it is kept. */
interface KeptEnding {
  reason: SlurmEnding;
  graceMs: number;
  /** When the grace is over, in ms since the epoch: a later agent has another monotonic clock. */
  killAtMs: number;
}

const FACTS = 'facts.json';
const SUBMITTING = 'submitting.json';
const JOB = 'job.json';
const ENDING = 'ending.json';
const END = 'end.json';
const NO_LIMIT = { bytes: Number.POSITIVE_INFINITY, marked: true };

/**
 * An attempt in a job of Slurm, on this agent until it is forgotten:
 *
 *   waiting ──sbatch was asked──▶ submitting ──number is known──▶ submitted ──result, or Slurm's word──▶ ended
 *      ├────────refused, cancelled──────┼──────────────────────────────────────────────────────────────▲
 *      └───────its agent is gone────────┴──there is no job, and none can start it──▶ given back
 *
 * Its files on this host hold what a restarted agent needs to go on; those that it shares with the job are in `job`.
 */
export class SlurmAttempt {
  readonly facts: SlurmFacts;
  readonly job: JobDirectory;
  readonly files: AttemptFiles;
  readonly sender: OutputSender;
  /** A job may have been submitted by a former agent. */
  readonly recovered: boolean;
  /** Why there is no job of it; the control plane is to be told, and another agent may try. */
  refusal: StartRefusal['error'] | undefined;
  /** Where the next record of the job begins. */
  offset = 0;
  /** Settled when what is being read just now was taken, with the reason why that is not all; undefined: it is all. */
  reading: Promise<string | undefined> | undefined;
  /** When the agent saw that its code has started, by `performance.now()`; undefined: it has not. */
  startedMs: number | undefined;
  /** Slurm has told the job to end, for a reason of its own. */
  stoppedBySlurm = false;
  /** Slurm has put the job back into its queue after it had started. */
  requeued = false;
  /** The last word of the job. */
  final: { message: FinishedMessage; output: Uint8Array } | undefined;
  /** What the cluster says of the job, and since when it says that it has ended, or does not know it. */
  cluster: ClusterJob | undefined;
  goneSinceMs: number | undefined;
  /** As the code has told it last. */
  percent = 0;
  /** What was told of its wait last. */
  toldWait = '';
  /** When it was submitted, by `performance.now()`; 0: by a former agent. */
  submittedMs = 0;
  /** The next step of its end. */
  timer: NodeJS.Timeout | undefined;
  #jobId: string | undefined;
  #submitting: boolean;
  #mayHaveJob: boolean;
  #ending: KeptEnding | undefined;
  /** When the grace is over, by `performance.now()`. */
  #killAtMs = 0;
  #end: KeptEnd | undefined;

  /**
   * @param directory its own on this host; what a former agent has left there is taken up
   * @param isNoted this agent has noted it there
   * @throws Error when that cannot be read or written
   */
  constructor(
    directory: string,
    facts: SlurmFacts,
    job: JobDirectory,
    emit: (stream: OutputStream, offset: number, data: Uint8Array) => void,
    isNoted = false,
  ) {
    this.facts = facts;
    this.job = job;
    this.#jobId = keptFacts(directory, JOB) as string | undefined;
    const submitting = keptFacts(directory, SUBMITTING);
    this.#submitting = submitting === true;
    this.#mayHaveJob = submitting !== undefined;
    this.#ending = keptFacts(directory, ENDING) as KeptEnding | undefined;
    if (this.#ending !== undefined) {
      const { killAtMs, graceMs } = this.#ending;
      // Not longer than it was at first, whatever the clock was set to.
      this.#killAtMs = performance.now() + Math.min(killAtMs - Date.now(), graceMs);
    }
    this.#end = keptFacts(directory, END) as KeptEnd | undefined;
    // The job cuts its streams off by itself.
    this.files = AttemptFiles.open(directory, { stdout: NO_LIMIT, stderr: NO_LIMIT });
    this.sender = new OutputSender(this.files, ['stdout', 'stderr'], emit);
    this.recovered = !isNoted && existsSync(join(directory, FACTS));
    if (!this.recovered) this.files.keep(FACTS, facts);
  }

  /** Notes an attempt whose environment is being made: to a later agent it is one that was not submitted. */
  static note(directory: string, facts: SlurmFacts): void {
    noteFacts(directory, FACTS, facts);
  }

  /**
   * The facts of an attempt that a former agent has left; undefined when it left none.
   * @throws Error when they cannot be read
   */
  static factsIn(directory: string): SlurmFacts | undefined {
    return keptFacts(directory, FACTS) as SlurmFacts | undefined;
  }

  get started(): boolean {
    return this.startedMs !== undefined;
  }

  /** Number of its job, once that is known. */
  get jobId(): string | undefined {
    return this.#jobId;
  }

  /** @throws Error of the file system; the number is known all the same */
  setJobId(jobId: string, submittedMs: number): void {
    this.#jobId = jobId;
    this.submittedMs = submittedMs;
    this.files.keep(JOB, jobId);
  }

  /** There may be a job of it whose number is not known. */
  get submitting(): boolean {
    return this.#jobId === undefined && this.#submitting;
  }

  /** Slurm was asked for a job of it, now or before: one may come up that neither its queue nor its accounts have told. */
  get mayHaveJob(): boolean {
    return this.#mayHaveJob;
  }

  /**
   * Notes, before it happens, that it is being submitted; or, afterwards, that there is no job of it.
   * @throws Error of the file system. Then it must not be submitted, or there is no job all the same
   */
  setSubmitting(submitting: boolean): void {
    if (!submitting && !this.#submitting) return;
    this.#submitting = false;
    this.files.keep(SUBMITTING, submitting);
    this.#submitting = submitting;
    this.#mayHaveJob = true;
  }

  /** Why it was told to end; undefined: it was not. */
  get ending(): SlurmEnding | undefined {
    return this.#ending?.reason;
  }

  /** How long it may still take to end when it was told to, in whole milliseconds; 0: the time is over. */
  get graceLeftMs(): number {
    return Math.max(0, Math.ceil(this.#killAtMs - performance.now()));
  }

  /**
   * Tells it to end. The first reason stands, and the earliest end of the grace.
   * @throws Error of the file system; it was told all the same
   */
  tellToEnd(reason: SlurmEnding, graceMs: number): void {
    const killAtMs = performance.now() + graceMs;
    if (this.#ending !== undefined && this.#killAtMs <= killAtMs) return;
    this.#killAtMs = killAtMs;
    this.#ending = { reason: this.#ending?.reason ?? reason, graceMs, killAtMs: Date.now() + graceMs };
    this.files.keep(ENDING, this.#ending);
  }

  get ended(): boolean {
    return this.#end !== undefined;
  }

  /** Output of the job from an offset of its stream on; what is here already is left out. */
  append(stream: OutputStream, offset: number, data: Uint8Array): void {
    const before = stream === 'stderr' ? this.facts.preludeBytes : 0;
    const known = this.files.length(stream) - before;
    if (offset > known) throw new Error(`${stream} of the job has a gap between ${known} and ${offset}`);
    this.files.append(stream, data.subarray(known - offset));
  }

  /** Keeps how it ended; an end is for good. */
  finish(end: Omit<AttemptEnd, 'stdoutBytes' | 'stderrBytes'>): void {
    clearTimeout(this.timer);
    this.#end = {
      ...end,
      error: end.error ?? null,
      exitCode: end.exitCode ?? null,
      output: Buffer.from(end.output).toString('base64'),
      stdoutBytes: this.sender.length('stdout'),
      stderrBytes: this.sender.length('stderr'),
    };
    this.files.keep(END, this.#end);
  }

  /** How it ended. */
  get end(): AttemptEnd | undefined {
    if (this.#end === undefined) return undefined;
    const { error, exitCode, output, ...rest } = this.#end;
    return {
      ...rest,
      error: error ?? undefined,
      exitCode: exitCode ?? undefined,
      output: Buffer.from(output, 'base64'),
    };
  }

  /** Bytes of output and result that the control plane has not acknowledged. */
  get unacknowledgedBytes(): number {
    return this.sender.unacknowledgedBytes + Buffer.byteLength(this.#end?.output ?? '', 'base64');
  }

  /** Leaves it to a later agent. */
  close(): void {
    clearTimeout(this.timer);
    this.files.close();
  }

  /** Removes what is on this host. */
  remove(): void {
    clearTimeout(this.timer);
    this.files.remove();
  }
}
