import { type Logger, messageOf } from '@harrier/shared';
import type { Taken, Taker } from '../slurm/job-directory.ts';
import { isFinal, isWaiting } from '../slurm/job-list.ts';
import type { JobRecord } from '../slurm/job-records.ts';
import type { Look, SlurmCluster } from '../slurm/slurm-cluster.ts';
import { logFacts } from './log-facts.ts';
import type { SlurmAttempt } from './slurm-attempt.ts';

export interface SlurmWatchOptions {
  cluster: Pick<SlurmCluster, 'accounts'>;
  attempts: () => Iterable<SlurmAttempt>;
  /** In order. */
  onRecord: (attempt: SlurmAttempt, record: JobRecord) => void;
  /**
   * The job has ended as Slurm sees it, and everything that it has left was read. May be told again.
   * @param taken by which job; undefined: by none
   */
  onGone: (attempt: SlurmAttempt, taken: Taken | undefined) => Promise<void>;
  /** The job has ended, but not all that it has left can be read, or the accounts cannot: nobody knows how it ended. */
  onUnread: (attempt: SlurmAttempt, reason: string) => void;
  /** Slurm has put the job back into its queue after it had started. Told once. */
  onRequeued: (attempt: SlurmAttempt) => void;
  /** Why the job has not started. */
  onWait: (attempt: SlurmAttempt, reason: string) => void;
  logger: Logger;
}

/** Between two looks at the files of the jobs; longer when there are many: a file server has more to do. */
const READ_MS = 200;
const READ_MS_PER_JOB = 2;
const READS_AT_ONCE = 16;
/** What a job has written is seen within this time; Slurm may have told its end before. */
const GONE_MS = 5_000;
/**
 * A controller that has lost what it knew of its last seconds takes a job that runs for one that waits. The job may still go on:
 * it hears that it is to end within 5 s.
 */
const REQUEUED_MS = 10_000;
/** So long Slurm may not know a job before it counts as lost: a restarted controller reads its state first. */
const UNKNOWN_MS = 60_000;

/** So long the files of a job that was told to end may be away: they are not waited for for ever where nobody wants the result. */
const UNREAD_MS = 60_000;

/** Follows jobs: what they write, and what Slurm says of them. */
export class SlurmWatch {
  readonly #options: SlurmWatchOptions;
  readonly #settling = new Set<SlurmAttempt>();
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: SlurmWatchOptions) {
    this.#options = options;
  }

  open(): void {
    const turn = async (): Promise<void> => {
      const count = await this.#readAll();
      if (this.#closed) return;
      this.#timer = setTimeout(() => void turn(), Math.max(READ_MS, count * READ_MS_PER_JOB));
    };
    void turn();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  /** What Slurm says of the jobs now. */
  looked(look: Look): void {
    const unknown: SlurmAttempt[] = [];
    for (const attempt of this.#followed()) {
      if (attempt.jobId === undefined || attempt.submittedMs > look.askedMs) continue;
      const job = look.jobs.get(attempt.jobId);
      if (job === undefined) {
        unknown.push(attempt);
        continue;
      }
      attempt.cluster = job;
      // An answer may be older than the start that was seen meanwhile.
      const hadStarted = (attempt.startedMs ?? Number.POSITIVE_INFINITY) < look.askedMs;
      const wasRequeued = isWaiting(job) && (job.restarts > 0 || hadStarted);
      if (wasRequeued && !attempt.requeued) {
        attempt.requeued = true;
        this.#options.onRequeued(attempt);
      }
      if (wasRequeued) this.#gone(attempt, REQUEUED_MS);
      else if (isFinal(job)) this.#gone(attempt, GONE_MS);
      else attempt.goneSinceMs = undefined;
      if (isWaiting(job) && !wasRequeued) {
        this.#options.onWait(attempt, `Slurm job ${job.id} waits${job.reason === '' ? '' : `: ${job.reason}`}`);
      }
    }
    if (unknown.length > 0) void this.#account(unknown);
  }

  /** The controller forgets jobs some minutes after their end (MinJobAge). */
  async #account(attempts: readonly SlurmAttempt[]): Promise<void> {
    const known = await this.#options.cluster.accounts(attempts.map(({ jobId = '' }) => jobId));
    for (const attempt of attempts) {
      const job = known?.get(attempt.jobId ?? '');
      // What runs or waits by the accounts alone does so for ever: a controller has lost it, and has not told its end.
      attempt.cluster = job !== undefined && isFinal(job) ? job : undefined;
      if (attempt.cluster !== undefined) this.#gone(attempt, GONE_MS);
      else if (known !== undefined || attempt.ending !== undefined) this.#gone(attempt, UNKNOWN_MS);
      else this.#unaccounted(attempt);
    }
  }

  /** Only the accounts know why it has ended, and do not answer: it counts as lost when they do, and do not know it either. */
  #unaccounted(attempt: SlurmAttempt): void {
    attempt.goneSinceMs = undefined;
    if (this.#closed || attempt.ended) return;
    this.#options.onUnread(attempt, `Slurm has forgotten job ${attempt.jobId}, and its accounting does not answer`);
  }

  /** It counts as gone when it has been so for a while, and its files were read after that. */
  #gone(attempt: SlurmAttempt, patienceMs: number): void {
    attempt.goneSinceMs ??= performance.now();
    if (performance.now() - attempt.goneSinceMs < patienceMs && !isSettled(attempt)) return;
    // A file server that hangs gets no queue of questions.
    if (this.#settling.has(attempt)) return;
    this.#settling.add(attempt);
    this.#settle(attempt)
      .catch((error) => {
        // The next answer of the controller asks again.
        this.#options.logger.error({ ...logFacts(attempt.facts), err: error }, 'the end of a job could not be told');
      })
      .finally(() => this.#settling.delete(attempt));
  }

  /** Nothing is known of the end before everything that the job has left was read: it may have succeeded. */
  async #settle(attempt: SlurmAttempt): Promise<void> {
    let fault = await this.#readAfresh(attempt);
    let taken: Taker | undefined;
    try {
      taken = await attempt.job.taken();
    } catch (error) {
      fault ??= messageOf(error);
    }
    const { jobId, goneSinceMs, ending, ended } = attempt;
    if (this.#closed || ended || goneSinceMs === undefined) return;
    const isWanted = ending === undefined || performance.now() - goneSinceMs < UNREAD_MS;
    if (fault === undefined || !isWanted) await this.#options.onGone(attempt, taken === 'agent' ? undefined : taken);
    else this.#options.onUnread(attempt, `Slurm job ${jobId} has ended, but its files cannot be read yet: ${fault}`);
  }

  #followed(): SlurmAttempt[] {
    return [...this.#options.attempts()].filter(({ ended, jobId }) => !ended && jobId !== undefined);
  }

  /** @returns how many were read */
  async #readAll(): Promise<number> {
    const left = this.#followed();
    const count = left.length;
    const readers = Array.from({ length: Math.min(READS_AT_ONCE, count) }, async () => {
      for (let attempt = left.pop(); attempt !== undefined; attempt = left.pop()) await this.#read(attempt);
    });
    await Promise.all(readers);
    return count;
  }

  /** All that is there at the time of the call. @returns why it was not all; undefined: it was */
  async #readAfresh(attempt: SlurmAttempt): Promise<string | undefined> {
    while (attempt.reading !== undefined) await attempt.reading;
    return await this.#read(attempt);
  }

  #read(attempt: SlurmAttempt): Promise<string | undefined> {
    attempt.reading ??= this.#readRecords(attempt).finally(() => {
      attempt.reading = undefined;
    });
    return attempt.reading;
  }

  async #readRecords(attempt: SlurmAttempt): Promise<string | undefined> {
    try {
      for (let more = true; more && !this.#closed && !attempt.ended; ) {
        const { records, next } = await attempt.job.read(attempt.offset);
        if (this.#closed || attempt.ended) return undefined;
        for (const record of records) this.#options.onRecord(attempt, record);
        attempt.offset = next;
        more = records.length > 0;
      }
      return undefined;
    } catch (error) {
      // It is read again, from where it was read to.
      const reason = messageOf(error);
      this.#options.logger.debug({ directory: attempt.job.path, reason }, 'job not read');
      return reason;
    }
  }
}

/** Its last word was read already. */
function isSettled({ final }: SlurmAttempt): boolean {
  return final !== undefined;
}
