import { type Logger, messageOf } from '@harrier/shared';
import { isWaiting } from '../slurm/job-list.ts';
import type { SlurmCluster } from '../slurm/slurm-cluster.ts';
import { logFacts } from './log-facts.ts';
import type { SlurmAttempt } from './slurm-attempt.ts';

export interface SlurmStopsOptions {
  cluster: Pick<SlurmCluster, 'end'>;
  logger: Logger;
}

/** Between the end of the grace, at which the job kills its code itself, and killing the job. */
const KILL_MARGIN_MS = 5_000;

/** Ends jobs of attempts that were told to end, each by the end of its grace and not before. */
export class SlurmStops {
  readonly #options: SlurmStopsOptions;
  /** The newest request of each attempt that is under way: a command of Slurm may take a minute. */
  readonly #underWay = new Map<SlurmAttempt, object>();
  #closed = false;

  constructor(options: SlurmStopsOptions) {
    this.#options = options;
  }

  close(): void {
    this.#closed = true;
  }

  /** Asks the job to end; when the grace is over, it is killed. Safe to call again, as when the grace got shorter. */
  stop(attempt: SlurmAttempt): void {
    clearTimeout(attempt.timer);
    attempt.timer = undefined;
    if (attempt.jobId === undefined || attempt.ending === undefined) return;
    const request = {};
    this.#underWay.set(attempt, request);
    void this.#stop(attempt).finally(() => {
      if (this.#underWay.get(attempt) === request) this.#underWay.delete(attempt);
    });
  }

  /**
   * The controller answers: jobs are asked that have not heard it yet, because the controller was away or a former agent was told,
   * and those are killed once more that should have ended.
   */
  goOn(attempts: Iterable<SlurmAttempt>): void {
    for (const attempt of attempts) {
      const { ending, ended, timer } = attempt;
      if (ending !== undefined && !ended && timer === undefined && !this.#underWay.has(attempt)) this.stop(attempt);
    }
  }

  /** Kills the job, and takes it out of Slurm's queue; without a number there is none. Never rejects. */
  async remove(attempt: SlurmAttempt): Promise<void> {
    await this.#end(attempt, 'kill');
    await this.#end(attempt, 'remove');
  }

  async #stop(attempt: SlurmAttempt): Promise<void> {
    const graceMs = attempt.graceLeftMs;
    if (attempt.ending !== undefined) await attempt.job.askForEnd(attempt.ending, graceMs).catch(() => {});
    if (graceMs === 0) {
      await this.remove(attempt);
      return;
    }
    const wasHeard = await this.#end(attempt, mayRun(attempt) ? 'ask' : 'remove');
    if (!wasHeard || this.#closed || attempt.ended) return;
    clearTimeout(attempt.timer);
    attempt.timer = setTimeout(() => this.stop(attempt), attempt.graceLeftMs + KILL_MARGIN_MS);
  }

  /** @returns whether Slurm has done it */
  async #end(attempt: SlurmAttempt, how: 'ask' | 'kill' | 'remove'): Promise<boolean> {
    if (attempt.jobId === undefined) return false;
    const fault = await this.#options.cluster.end(attempt.jobId, how).catch(messageOf);
    if (fault !== undefined) {
      const facts = { ...logFacts(attempt.facts), job: attempt.jobId, how, reason: fault };
      this.#options.logger.warn(facts, 'job not ended');
    }
    return fault === undefined;
  }
}

/** Taking it out of Slurm's queue would leave its code only the grace that Slurm has for all jobs. */
function mayRun({ started, cluster, recovered }: SlurmAttempt): boolean {
  return started || (cluster === undefined ? recovered : !isWaiting(cluster));
}
