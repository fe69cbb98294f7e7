import { type BackoffOptions, fullJitterMs, type Logger, messageOf } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { SlurmCluster, Submission } from '../slurm/slurm-cluster.ts';
import { keepFact } from './keep-fact.ts';
import { logFacts } from './log-facts.ts';
import { jobName } from './sbatch-arguments.ts';
import type { SlurmAttempt } from './slurm-attempt.ts';

export interface SlurmSubmissionsOptions {
  cluster: Pick<SlurmCluster, 'submit' | 'find'>;
  /** Of every job. */
  script: string;
  /** Why an attempt is not submitted yet. */
  onWait: (attempt: SlurmAttempt, reason: string) => void;
  logger: Logger;
  /** Absent: what suits a controller. */
  pauses?: { retry: BackoffOptions; settleMs: number; laterMs: number; unknownMs: number };
}

const PAUSES = {
  retry: { initialMs: 1_000, maxMs: 30_000, multiplier: 2 },
  /** The controller may still be busy with a request whose asker is gone. */
  settleMs: 5_000,
  /** A cluster that takes no more jobs for so long may do so for hours, and another agent's may not. */
  laterMs: 10 * 60_000,
  /** A job tells its number right after it has started; one whose node has failed in between never does. */
  unknownMs: 60_000,
};
/** Times that the controller must say that there is no job of the name. */
const LOOKS = 2;
const AGENT_STOPS: NoJob = { code: Code.AGENT_LOST, message: 'the agent stops', requeue: false };
const UNKNOWN_JOB: NoJob = {
  code: Code.AGENT_LOST,
  message: 'a job has started it of which neither Slurm nor its files tell the number',
  requeue: false,
};

/** Why there is no job of an attempt. */
export interface NoJob {
  code: Code;
  message: string;
  /** Nothing of it has run or will: another agent may try. */
  requeue: boolean;
}

/** What became of a submission. */
export type SubmissionEnd = 'submitted' | NoJob;

/**
 * Brings attempts to Slurm, each once: when an answer did not come, the job is looked for by its name before another one is
 * submitted. Should there be two all the same, one of them finds the attempt taken.
 */
export class SlurmSubmissions {
  readonly #options: SlurmSubmissionsOptions;
  readonly #pauses: typeof PAUSES;
  readonly #closed = new AbortController();
  readonly #wake = new Map<SlurmAttempt, () => void>();

  constructor(options: SlurmSubmissionsOptions) {
    this.#options = options;
    this.#pauses = options.pauses ?? PAUSES;
  }

  close(): void {
    this.#closed.abort();
    for (const wake of this.#wake.values()) wake();
  }

  /** The attempt is to end: a submission that waits is given up. */
  stop(attempt: SlurmAttempt): void {
    this.#wake.get(attempt)?.();
  }

  /** Resolves when there is a job, or with the reason why there will be none. */
  async submit(attempt: SlurmAttempt, args: readonly string[]): Promise<SubmissionEnd> {
    const { onWait, logger } = this.#options;
    let laterSinceMs: number | undefined;
    let wasLost = false;
    // An answer that was lost may be that of a job which came up after it was looked for.
    const without = async (none: NoJob): Promise<SubmissionEnd> =>
      wasLost ? await this.withdraw(attempt, none) : none;
    for (let failures = 0; ; failures++) {
      if (this.#isOver(attempt))
        return await without({ code: Code.CANCELLED, message: 'cancelled before it was submitted', requeue: false });
      const submission = await this.#submitOnce(attempt, args);
      if (this.#closed.signal.aborted) return AGENT_STOPS;
      if ('jobId' in submission) {
        this.#known(attempt, submission.jobId);
        return 'submitted';
      }
      const { failure, message } = submission;
      // There is no job, and there is to be none.
      if (failure === 'later' && this.#isOver(attempt)) continue;
      logger.warn(
        { ...logFacts(attempt.facts), job: jobName(attempt.facts), failure, reason: message },
        'job not submitted',
      );
      wasLost ||= failure === 'unknown';
      if (failure === 'unknown' && (await this.find(attempt))) return 'submitted';
      if (this.#closed.signal.aborted) return AGENT_STOPS;
      keepFact(attempt.facts, logger, () => attempt.setSubmitting(false));
      if (failure === 'refused')
        return await without({
          code: Code.POLICY_DENIED,
          message: `Slurm refuses the job: ${message}`,
          requeue: false,
        });
      if (failure === 'later') laterSinceMs ??= performance.now();
      const waitedMs = performance.now() - (laterSinceMs ?? Number.POSITIVE_INFINITY);
      if (!this.#isOver(attempt) && waitedMs >= this.#pauses.laterMs)
        return await without({
          code: Code.SUBMIT_FAILED,
          message: `not submitted to Slurm: ${message}`,
          requeue: true,
        });
      onWait(attempt, `not submitted to Slurm yet: ${message}`);
      await this.#pause(attempt, fullJitterMs(failures, this.#pauses.retry));
    }
  }

  /** Looks for the job of an attempt until the controller has answered. @returns whether there is one */
  async find(attempt: SlurmAttempt): Promise<boolean> {
    const { cluster, onWait } = this.#options;
    if (!attempt.submitting) return false;
    for (let looks = 0, failures = 0; !this.#closed.signal.aborted; ) {
      let found: { jobId: string | undefined } | undefined;
      let unknown = 'Slurm has to tell whether it was submitted';
      try {
        const taken = await attempt.job.taken().catch((error) => {
          // Nobody wants the result: whether there is a job to end, the controller knows too.
          if (attempt.ending === undefined) throw error;
          return undefined;
        });
        // A former agent has found no job, and has seen to it that none starts the attempt.
        if (taken === 'agent') return false;
        // A job that has ended already is nothing to end.
        const which = { forgotten: attempt.ending === undefined };
        found = taken?.job ? { jobId: taken.job } : await cluster.find(jobName(attempt.facts), which);
      } catch (error) {
        unknown = `the shared directory has to tell whether it was submitted: ${messageOf(error)}`;
      }
      if (found?.jobId !== undefined) {
        this.#known(attempt, found.jobId);
        return true;
      }
      if (found !== undefined && ++looks === LOOKS) return false;
      if (found === undefined) {
        onWait(attempt, unknown);
        await this.#pause(undefined, fullJitterMs(failures++, this.#pauses.retry));
      } else {
        await this.#pause(undefined, this.#pauses.settleMs);
      }
    }
    return false;
  }

  /**
   * Takes an attempt, of which Slurm has said that there is no job, before it is told that there is none: a job may have come up since.
   * Tried until the shared directory has answered.
   * @param none why there is none
   * @returns that, if no job can start the attempt any more; `submitted` if one was faster
   */
  async withdraw(attempt: SlurmAttempt, none: NoJob): Promise<SubmissionEnd> {
    if (!attempt.mayHaveJob) return none;
    const { cluster, onWait } = this.#options;
    let unknownSinceMs: number | undefined;
    for (let failures = 0; !this.#closed.signal.aborted; failures++) {
      let wait = 'a job has started it, and its number is not known yet';
      try {
        const taker = await attempt.job.take();
        if (taker === 'agent') return none;
        const which = { forgotten: attempt.ending === undefined };
        const found = taker.job ? { jobId: taker.job } : await cluster.find(jobName(attempt.facts), which);
        if (found?.jobId !== undefined) {
          this.#known(attempt, found.jobId);
          return 'submitted';
        }
        if (found !== undefined) {
          unknownSinceMs ??= performance.now();
          if (performance.now() - unknownSinceMs >= this.#pauses.unknownMs) return UNKNOWN_JOB;
        }
      } catch (error) {
        // Nobody wants the result.
        if (attempt.ending !== undefined) return none;
        wait = `the shared directory has to tell whether a job has started it: ${messageOf(error)}`;
      }
      onWait(attempt, wait);
      // The end that it waits for already ends no more pauses.
      const wakes = attempt.ending === undefined ? attempt : undefined;
      await this.#pause(wakes, fullJitterMs(failures, this.#pauses.retry));
    }
    return AGENT_STOPS;
  }

  /** Not without a note: a later agent would take it for not submitted. And not before its turn: that agent would have to ask. */
  async #submitOnce(attempt: SlurmAttempt, args: readonly string[]): Promise<Submission> {
    return await this.#options.cluster.submit(args, this.#options.script, () => {
      if (this.#isOver(attempt)) return 'it is to end, or the agent stops';
      try {
        attempt.setSubmitting(true);
        return undefined;
      } catch (error) {
        return `the agent cannot note that it is submitted: ${messageOf(error)}`;
      }
    });
  }

  /** Where the disk does not take the number, a later agent finds the job by its name. */
  #known(attempt: SlurmAttempt, jobId: string): void {
    keepFact(attempt.facts, this.#options.logger, () => attempt.setJobId(jobId, performance.now()));
  }

  #isOver(attempt: SlurmAttempt): boolean {
    return this.#closed.signal.aborted || attempt.ending !== undefined || attempt.ended;
  }

  /** @param attempt whose end ends the pause */
  async #pause(attempt: SlurmAttempt | undefined, ms: number): Promise<void> {
    if (this.#closed.signal.aborted || attempt?.ending !== undefined) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    const onClose = (): void => resolve();
    this.#closed.signal.addEventListener('abort', onClose, { once: true });
    if (attempt !== undefined) this.#wake.set(attempt, resolve);
    await promise;
    clearTimeout(timer);
    this.#closed.signal.removeEventListener('abort', onClose);
    if (attempt !== undefined) this.#wake.delete(attempt);
  }
}
