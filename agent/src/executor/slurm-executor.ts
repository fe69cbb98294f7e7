import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Logger, messageOf } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Assignment } from '@harrier/shared/gen/link';
import type { PreparedEnvironment } from '../environment/environment.ts';
import { encodeHeader, LauncherProtocolError } from '../launcher/frame-codec.ts';
import type { FinishedMessage } from '../launcher/messages.ts';
import type { JobSettings, Taken } from '../slurm/job-directory.ts';
import type { JobRecord } from '../slurm/job-records.ts';
import type { SharedDirectory } from '../slurm/shared-directory.ts';
import type { Look, SlurmCluster } from '../slurm/slurm-cluster.ts';
import type { AttemptEnd, AttemptKey, CancelReason, Executor, ExecutorEvents, StartRefusal } from './executor.ts';
import { keepFact } from './keep-fact.ts';
import { attemptEnd } from './launcher-events.ts';
import { aboutAttempt, aboutOf, logFacts } from './log-facts.ts';
import { jobName, jobScript, sbatchArguments } from './sbatch-arguments.ts';
import { SlurmAttempt, type SlurmFacts } from './slurm-attempt.ts';
import { slurmOutcome } from './slurm-outcome.ts';
import { SlurmStops } from './slurm-stops.ts';
import { type NoJob, SlurmSubmissions, type SubmissionEnd } from './slurm-submissions.ts';
import { SlurmWatch } from './slurm-watch.ts';
import { durationMs, startMessage } from './start-message.ts';

export interface SlurmExecutorOptions {
  cluster: Pick<SlurmCluster, 'submit' | 'find' | 'accounts' | 'end' | 'onLook' | 'hurry'>;
  shared: SharedDirectory;
  /** Why nothing can be submitted now; undefined when it can. */
  unavailable: () => string | undefined;
  /** Of the agent: attempts are kept there. */
  dataDir: string;
  /** Where requests name none; empty: the cluster's default. */
  partition: string;
  /** Interpreter on the nodes. */
  python: string;
  /** Options of the runtime in jobs. */
  flags: readonly string[];
  /** Where the nodes have the device nodes of their cards. */
  gpuDevRoot: string;
  /** Jobs at once, at most. */
  maxJobs: number;
  /** What calls with network INDEX may reach, each `HOST:PORT`. */
  indexHosts: readonly string[];
  /**
   * Called for an attempt that Slurm has not taken for long, or that a former agent has not submitted: another agent may. Answers
   * whether that was told; then it is forgotten here. If not, it is tried again, at the next replay at the latest.
   */
  onRefused: (key: AttemptKey, error: StartRefusal['error']) => boolean;
  events: ExecutorEvents;
  logger: Logger;
}

const NOTHING_RAN = { exitCode: undefined, output: new Uint8Array(0), runMs: 0, cpuMs: 0, maxRssBytes: 0 };
const NOT_CUT = { stdoutTruncated: false, stderrTruncated: false };

/**
 * Attempts as jobs of Slurm, each in a job of its own that runs the same runtime as this host does. Everything that a job
 * says comes by files that it shares with this agent, so that it needs neither this process nor the controller to go on.
 */
export class SlurmExecutor implements Executor {
  readonly kind = 'slurm';
  readonly #options: SlurmExecutorOptions;
  readonly #directory: string;
  readonly #attempts = new Map<string, SlurmAttempt>();
  /** Names of attempts whose environment is being made. */
  readonly #noted = new Set<string>();
  readonly #submissions: SlurmSubmissions;
  readonly #watch: SlurmWatch;
  readonly #stops: SlurmStops;
  readonly #events: ExecutorEvents;
  #closed = false;

  constructor(options: SlurmExecutorOptions) {
    const { cluster, dataDir, python, logger, events } = options;
    this.#options = options;
    this.#directory = join(dataDir, 'slurm', 'attempts');
    const script = jobScript(python);
    this.#submissions = new SlurmSubmissions({
      cluster,
      script,
      onWait: (attempt, reason) => this.#tellWait(attempt, reason),
      logger,
    });
    this.#watch = new SlurmWatch({
      cluster,
      attempts: () => this.#attempts.values(),
      onRecord: (attempt, record) => this.#take(attempt, record),
      onGone: (attempt, taken) => this.#settleGone(attempt, taken),
      onUnread: (attempt, reason) => this.#tellUnread(attempt, reason),
      onRequeued: (attempt) => this.#askForEnd(attempt),
      onWait: (attempt, reason) => this.#tellWait(attempt, reason),
      logger,
    });
    this.#stops = new SlurmStops({ cluster, logger });
    cluster.onLook((look) => this.#looked(look));
    this.#events = events;
  }

  /** Jobs that have not ended. */
  get jobs(): number {
    let jobs = 0;
    for (const { ended, refusal } of this.#attempts.values()) if (!ended && refusal === undefined) jobs++;
    return jobs;
  }

  /** Bytes of output and results here that the control plane has not acknowledged. */
  get unacknowledgedBytes(): number {
    return [...this.#attempts.values()].reduce((sum, attempt) => sum + attempt.unacknowledgedBytes, 0);
  }

  /** Takes up what a former agent has left: to be called once, before anything is started. */
  open(): void {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(this.#directory)) this.#recoverOrDrop(join(this.#directory, name));
    // Whoever has attempts here knows of them before the control plane asks.
    this.replay();
    this.#watch.open();
  }

  /** Whether an attempt is here. @param name of its job */
  has(name: string): boolean {
    return this.#attempts.has(name);
  }

  /** Leaves everything to a later agent. */
  close(): void {
    this.#closed = true;
    this.#watch.close();
    this.#submissions.close();
    this.#stops.close();
    for (const attempt of this.#attempts.values()) attempt.close();
  }

  preparing(assignment: Assignment): void {
    const facts = factsOf(assignment, 0);
    const name = jobName(facts);
    if (this.#attempts.has(name)) return;
    this.#noted.add(name);
    keepFact(facts, this.#options.logger, () => SlurmAttempt.note(join(this.#directory, name), facts));
  }

  start(assignment: Assignment, prepared: PreparedEnvironment, prelude: Uint8Array): StartRefusal | undefined {
    const { shared, maxJobs, indexHosts, partition, flags, gpuDevRoot } = this.#options;
    const facts = factsOf(assignment, prelude.length);
    const name = jobName(facts);
    if (this.#attempts.has(name)) return undefined;
    const gone = this.#options.unavailable();
    if (gone !== undefined) return later(gone);
    if (this.jobs >= maxJobs) return later(`the agent has ${maxJobs} jobs in Slurm, which is its most`);
    const { start: environment, scriptCommand } = prepared;
    const start = startMessage(assignment, { environment, scriptCommand, prelude: new Uint8Array(0), indexHosts });
    if (start === undefined) {
      const message = 'jobs of Slurm run Python and commands; the assignment holds neither';
      return { error: { code: Code.POLICY_DENIED, message }, requeue: false };
    }
    const bodyBytes = start.body.reduce((sum, { length }) => sum + length, 0);
    let frame: Uint8Array[];
    let attempt: SlurmAttempt;
    try {
      frame = [encodeHeader(start.message, bodyBytes), ...start.body];
    } catch (error) {
      if (!(error instanceof LauncherProtocolError)) throw error;
      const message = `the arguments, variables, code or input are too large: ${error.message}`;
      return { error: { code: Code.INPUT_INVALID, message }, requeue: false };
    }
    try {
      const isNoted = this.#noted.has(name);
      attempt = new SlurmAttempt(join(this.#directory, name), facts, shared.job(name), this.#emit(facts), isNoted);
      attempt.files.append('stderr', prelude);
    } catch (error) {
      return later(`the agent cannot keep the attempt: ${messageOf(error)}`);
    }
    attempt.sender.skip('stderr', prelude.length);
    this.#noted.delete(name);
    this.#attempts.set(name, attempt);
    const args = sbatchArguments(assignment, { directory: attempt.job.path, partition });
    const timeMs = durationMs(assignment.slurm?.time);
    const settings = { flags, lease: shared.lease, time_ms: timeMs, gpu_dev_root: gpuDevRoot };
    void this.#follow(attempt, this.#submit(attempt, frame, settings, args));
    return undefined;
  }

  cancel(key: AttemptKey, reason: CancelReason, graceMs: number): void {
    const attempt = this.#attempts.get(jobName(key));
    if (attempt === undefined || attempt.ended) return;
    keepFact(attempt.facts, this.#options.logger, () => attempt.tellToEnd(reason, graceMs));
    if (attempt.refusal !== undefined) this.#finish(attempt, slurmOutcome({ jobId: '', ending: attempt.ending }));
    this.#submissions.stop(attempt);
    this.#stops.stop(attempt);
  }

  acknowledgeOutput(key: AttemptKey, stdoutOffset: number, stderrOffset: number): void {
    const attempt = this.#attempts.get(jobName(key));
    if (attempt === undefined) return;
    const before = attempt.sender.drained;
    attempt.sender.acknowledge(stdoutOffset, stderrOffset);
    if (!before) this.#tellEnd(attempt);
  }

  forget(key: AttemptKey): void {
    const name = jobName(key);
    if (this.#noted.delete(name)) rmSync(join(this.#directory, name), { recursive: true, force: true });
    const attempt = this.#attempts.get(name);
    if (attempt === undefined) return;
    this.#attempts.delete(name);
    attempt.remove();
    void this.#removeJob(attempt);
  }

  /** What cannot be removed now is when the next agent starts. Never rejects. */
  async #removeJob({ facts, job }: SlurmAttempt): Promise<void> {
    await job.remove().catch((error) => {
      const context = { ...logFacts(facts), directory: job.path, reason: messageOf(error) };
      this.#options.logger.warn(context, 'job not removed');
    });
  }

  replay(): void {
    queueMicrotask(() => {
      if (this.#closed) return;
      const all = [...this.#attempts.values()];
      const held = all.map(({ facts, ended, started }) => {
        const { executionId, attempt } = facts;
        return { executionId, attempt, ...aboutAttempt(facts), finished: ended, started };
      });
      this.#events.onRecovered(this, held);
      for (const attempt of all) {
        attempt.toldWait = '';
        attempt.sender.rewind();
        attempt.sender.send();
        this.#tellEnd(attempt);
      }
    });
  }

  // From nothing to a job.

  async #submit(
    attempt: SlurmAttempt,
    frame: readonly Uint8Array[],
    settings: JobSettings,
    args: readonly string[],
  ): Promise<void> {
    const { shared } = this.#options;
    try {
      await attempt.job.create(frame, settings, shared.runtime);
    } catch (error) {
      this.#finish(attempt, failure(Code.SUBMIT_FAILED, `the shared directory cannot be written: ${messageOf(error)}`));
      return;
    }
    this.#submitted(attempt, await this.#submissions.submit(attempt, args));
  }

  /** A former agent may have submitted it. What it has not is given back: nothing of it has run, or will. */
  async #findOut(attempt: SlurmAttempt): Promise<void> {
    const message = 'the agent was started again before it had submitted the job';
    const none: NoJob = { code: Code.SUBMIT_FAILED, message, requeue: true };
    const found = await this.#submissions.find(attempt);
    // Slurm may have taken the job, and started it, after it had said that there is none.
    this.#submitted(attempt, found ? 'submitted' : await this.#submissions.withdraw(attempt, none));
  }

  /** Waits for a step of an attempt: what goes wrong with one must not end the agent, which has others. */
  async #follow(attempt: SlurmAttempt, step: Promise<void>): Promise<void> {
    try {
      await step;
    } catch (error) {
      this.#options.logger.error(
        { ...logFacts(attempt.facts), err: error },
        'an attempt could not be brought to Slurm',
      );
      this.#finish(attempt, failure(Code.INTERNAL, `the agent could not bring it to Slurm: ${messageOf(error)}`));
      await this.#stops.remove(attempt);
    }
  }

  #submitted(attempt: SlurmAttempt, end: SubmissionEnd): void {
    if (this.#closed || attempt.ended) return;
    if (end === 'submitted') {
      this.#options.logger.info({ ...logFacts(attempt.facts), job: attempt.jobId }, 'job submitted');
      this.#options.cluster.hurry();
      this.#stops.stop(attempt);
    } else if (attempt.ending !== undefined) {
      this.#finish(attempt, slurmOutcome({ jobId: '', ending: attempt.ending }));
    } else if (end.requeue) {
      attempt.refusal = { code: end.code, message: end.message };
      this.#tellEnd(attempt);
    } else {
      this.#finish(attempt, failure(end.code, end.message));
    }
  }

  // From a job to its end.

  #take(attempt: SlurmAttempt, { header, body }: JobRecord): void {
    if (this.#closed || attempt.ended) return;
    switch (header.type) {
      case 'started':
        attempt.startedMs ??= performance.now();
        this.#events.onStarted(attempt.facts);
        attempt.sender.send();
        return;
      case 'output':
        attempt.append(header.stream === 'stderr' ? 'stderr' : 'stdout', Number(header.offset), body);
        if (attempt.started) attempt.sender.send();
        return;
      case 'progress':
        attempt.percent = Number(header.percent);
        this.#events.onProgress(attempt.facts, attempt.percent, String(header.step));
        return;
      case 'stopping':
        attempt.stoppedBySlurm = true;
        return;
      case 'finished':
        attempt.final = { message: header as unknown as FinishedMessage, output: body };
        this.#settle(attempt);
    }
  }

  /** The job's last word is the end of the attempt, unless Slurm has ended the job: then it says why. */
  #settle(attempt: SlurmAttempt): void {
    if (attempt.final === undefined || attempt.ended) return;
    const end = attemptEnd(attempt.final.message, attempt.final.output);
    if ((attempt.stoppedBySlurm || attempt.requeued) && end.outcome !== 'succeeded' && attempt.ending === undefined)
      return;
    this.#finish(attempt, end);
  }

  /** Slurm may not know that the job still runs, and cannot end it then. */
  #askForEnd(attempt: SlurmAttempt): void {
    const { ending, job, facts } = attempt;
    if (ending !== undefined) return;
    job.askForEnd('shutdown', 0).catch((error) => {
      const context = { ...logFacts(facts), directory: job.path, reason: messageOf(error) };
      this.#options.logger.warn(context, 'a job that Slurm has put back into its queue was not told to end');
    });
  }

  /** Slurm says that the job has ended, or does not know it, and everything that it has written was read. */
  async #settleGone(attempt: SlurmAttempt, taken: Taken | undefined): Promise<void> {
    const log = await attempt.job.log();
    if (this.#closed || attempt.ended) return;
    const { jobId = '', cluster, ending, final } = attempt;
    if (taken !== undefined && taken.job !== jobId && taken.job !== '' && ending === undefined) {
      // It was submitted twice, and the other job was first.
      this.#options.logger.warn(
        { ...logFacts(attempt.facts), job: jobId, other: taken.job },
        'the attempt runs in another job',
      );
      keepFact(attempt.facts, this.#options.logger, () => attempt.setJobId(taken.job, performance.now()));
      attempt.goneSinceMs = undefined;
      return;
    }
    const own = final === undefined ? undefined : attemptEnd(final.message, final.output);
    const requeued = attempt.requeued || taken?.startedAgain === true;
    const outcome = slurmOutcome({ jobId, job: cluster, ending, node: taken?.node, requeued, log, own });
    this.#finish(attempt, { ...own, ...outcome });
    if (cluster !== undefined && outcome.error?.code === Code.AGENT_LOST) void this.#stops.remove(attempt);
  }

  #finish(attempt: SlurmAttempt, end: Partial<AttemptEnd> & Pick<AttemptEnd, 'outcome' | 'error'>): void {
    if (this.#closed || attempt.ended) return;
    keepFact(attempt.facts, this.#options.logger, () => attempt.finish({ ...NOTHING_RAN, ...NOT_CUT, ...end }));
    attempt.sender.send();
    this.#tellEnd(attempt);
  }

  #tellEnd(attempt: SlurmAttempt): void {
    const { end, sender, facts, refusal } = attempt;
    if (!sender.drained) return;
    if (end !== undefined) this.#events.onFinished(facts, end);
    else if (refusal !== undefined && this.#options.onRefused(facts, refusal)) this.forget(facts);
  }

  #tellWait(attempt: SlurmAttempt, reason: string): void {
    if (this.#closed || attempt.started || attempt.ended || attempt.toldWait === reason) return;
    attempt.toldWait = reason;
    this.#events.onProgress(attempt.facts, 0, reason);
  }

  /** Also to those who have seen it start: what they wait for is not the code any more. */
  #tellUnread(attempt: SlurmAttempt, reason: string): void {
    if (this.#closed || attempt.ended || attempt.toldWait === reason) return;
    attempt.toldWait = reason;
    this.#options.logger.warn({ ...logFacts(attempt.facts), job: attempt.jobId, reason }, 'end of a job not known yet');
    this.#events.onProgress(attempt.facts, attempt.percent, reason);
  }

  #looked(look: Look): void {
    if (this.#closed) return;
    this.#watch.looked(look);
    this.#stops.goOn(this.#attempts.values());
  }

  // What a former agent has left.

  /** What cannot be read is not held any more: the control plane ends it as AGENT_LOST, and its job finds nothing to run. */
  #recoverOrDrop(directory: string): void {
    try {
      this.#recover(directory);
    } catch (error) {
      this.#options.logger.error({ directory, reason: messageOf(error) }, 'attempt of a former agent dropped');
      rmSync(directory, { recursive: true, force: true });
    }
  }

  #recover(directory: string): void {
    const facts = SlurmAttempt.factsIn(directory);
    if (facts === undefined) {
      rmSync(directory, { recursive: true, force: true });
      return;
    }
    const name = jobName(facts);
    const attempt = new SlurmAttempt(directory, facts, this.#options.shared.job(name), this.#emit(facts));
    this.#attempts.set(name, attempt);
    if (!attempt.ended && attempt.jobId === undefined) void this.#follow(attempt, this.#findOut(attempt));
  }

  #emit({ executionId, attempt }: AttemptKey): (stream: 'stdout' | 'stderr', offset: number, data: Uint8Array) => void {
    return (stream, offset, data) => this.#events.onOutput({ executionId, attempt }, stream, offset, data);
  }
}

function factsOf(assignment: Assignment, preludeBytes: number): SlurmFacts {
  const { ref } = assignment;
  const key = { executionId: ref?.executionId ?? '', attempt: ref?.attempt ?? 0 };
  return { ...key, ...aboutOf(assignment), preludeBytes };
}

function failure(code: Code, message: string) {
  return { outcome: 'failed' as const, error: { code, message } };
}

function later(message: string): StartRefusal {
  return { error: { code: Code.SUBMIT_FAILED, message }, requeue: true };
}
