import type { Logger } from '@harrier/shared';
import {
  accountingArguments,
  accountingByNameArguments,
  type ClusterJob,
  parseAccounting,
  parseQueue,
  queueArguments,
} from './job-list.ts';
import { type FailureKind, failureKind } from './slurm-failure.ts';
import type { RunSlurmTool, ToolAnswer } from './slurm-tools.ts';

/** While there are jobs; their output and ends come by files, so that this is for what only the controller knows. */
const POLL_MS = 2_000;
/** Without jobs: whether the controller is there. */
const IDLE_POLL_MS = 10_000;
/** Commands that change something, at once: more only wait for each other at the controller. */
const MAX_AT_ONCE = 4;

export interface SlurmClusterOptions {
  run: RunSlurmTool;
  /** The user whose jobs the agent's are. */
  user: string;
  /** Whether somebody waits for news of jobs. */
  isBusy: () => boolean;
  logger: Logger;
}

/** What the controller has answered to a question. */
export interface Look {
  jobs: ReadonlyMap<string, ClusterJob>;
  /** When it was asked, by `performance.now()`: what was submitted later is not in it. */
  askedMs: number;
}

export type Submission = { jobId: string } | { failure: FailureKind; message: string };

/**
 * The cluster by its commands. One question for all jobs is asked again and again; who wants a newer answer than the last
 * shares the next question.
 */
export class SlurmCluster {
  readonly #options: SlurmClusterOptions;
  readonly #onLook = new Set<(look: Look) => void>();
  readonly #onChange = new Set<() => void>();
  readonly #waiting: (() => void)[] = [];
  #running = 0;
  #reason: string | undefined = 'the controller was not asked yet';
  #asking: Promise<Look | undefined> | undefined;
  #next: Promise<Look | undefined> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #hasAccounting = true;
  #accountingAway = false;
  #closed = false;

  constructor(options: SlurmClusterOptions) {
    this.#options = options;
  }

  /** Starts to ask. Resolves with the first answer. */
  async open(): Promise<void> {
    await this.look();
    this.#poll();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  /** Why nothing can be submitted now; undefined when the controller has answered the last question. */
  unavailable(): string | undefined {
    return this.#reason;
  }

  /** There are jobs from now on: the next question comes sooner. */
  hurry(): void {
    if (this.#timer !== undefined) this.#poll();
  }

  /** Called when the controller has come or gone. */
  onChange(listener: () => void): void {
    this.#onChange.add(listener);
  }

  /** Called with each answer. */
  onLook(listener: (look: Look) => void): void {
    this.#onLook.add(listener);
  }

  /** Asks for all jobs. Undefined: no answer. What was done before the call is in the answer. */
  look(): Promise<Look | undefined> {
    if (this.#asking === undefined) {
      this.#asking = this.#ask().finally(() => {
        this.#asking = undefined;
      });
      return this.#asking;
    }
    // The question that is under way may have been answered already.
    this.#next ??= this.#asking.then(() => {
      this.#next = undefined;
      return this.look();
    });
    return this.#next;
  }

  /**
   * @param args options of `sbatch`
   * @param hindrance asked when its turn has come, right before: why it is not to be submitted after all
   */
  async submit(args: readonly string[], script: string, hindrance: () => string | undefined): Promise<Submission> {
    const answer = await this.#inTurn(async () => hindrance() ?? (await this.#options.run('sbatch', args, script)));
    if (typeof answer === 'string') return { failure: 'later', message: answer };
    if (answer.kind !== 'done') {
      const failure = failureKind(answer);
      if (failure === 'away') this.#setReason(answer.message);
      return { failure, message: answer.message };
    }
    // JOB[;CLUSTER]
    const jobId = /^(\d+)/.exec(answer.stdout)?.[1];
    return jobId === undefined
      ? {
          failure: 'unknown',
          message: `sbatch has printed ${JSON.stringify(answer.stdout.trim())} instead of a number`,
        }
      : { jobId };
  }

  /**
   * The job of a name, if there is one; undefined: nobody knows, the controller or the accounting did not answer.
   * @param forgotten whether a job counts that the controller has forgotten
   */
  async find(name: string, { forgotten }: { forgotten: boolean }): Promise<{ jobId: string | undefined } | undefined> {
    const look = await this.look();
    if (look === undefined) return undefined;
    for (const job of look.jobs.values()) if (job.name === name) return { jobId: job.id };
    if (!forgotten) return { jobId: undefined };
    const told = await this.#account(accountingByNameArguments(this.#options.user, name));
    if (told === undefined) return undefined;
    for (const job of told.values()) if (job.name === name) return { jobId: job.id };
    return { jobId: undefined };
  }

  /** What the accounting knows of jobs; empty where there is none; undefined: it does not answer now. */
  async accounts(ids: readonly string[]): Promise<ReadonlyMap<string, ClusterJob> | undefined> {
    return ids.length === 0 ? new Map() : await this.#account(accountingArguments(ids));
  }

  /**
   * Ends a job: `ask` sends SIGTERM to what runs in it, `kill` SIGKILL, `remove` takes it out of the queue or ends it as
   * Slurm does. Answers what went wrong; a job that has ended is no fault.
   */
  async end(jobId: string, how: 'ask' | 'kill' | 'remove'): Promise<string | undefined> {
    const signal = { ask: ['--batch', '--signal=TERM'], kill: ['--full', '--signal=KILL'], remove: [] }[how];
    const answer = await this.#inTurn(() => this.#options.run('scancel', [...signal, jobId]));
    if (answer.kind === 'done' || /Invalid job id|already completing|already completed/i.test(answer.message))
      return undefined;
    return answer.message;
  }

  async #account(args: readonly string[]): Promise<ReadonlyMap<string, ClusterJob> | undefined> {
    if (!this.#hasAccounting) return new Map();
    const answer = await this.#options.run('sacct', args);
    const wasAway = this.#accountingAway;
    this.#accountingAway = false;
    if (answer.kind === 'done') return parseAccounting(answer.stdout);
    if (!/disabled|no command|not running|not enabled/i.test(answer.message)) {
      this.#accountingAway = true;
      // Once, and not with each question.
      if (!wasAway)
        this.#options.logger.warn({ reason: answer.message }, 'the accounting of the cluster does not answer');
      return undefined;
    }
    this.#hasAccounting = false;
    this.#options.logger.info({ reason: answer.message }, 'the cluster keeps no accounts; states come from its queue');
    return new Map();
  }

  #poll(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#closed) return;
    const turn = async (): Promise<void> => {
      this.#timer = undefined;
      await this.look();
      this.#poll();
    };
    this.#timer = setTimeout(() => void turn(), this.#options.isBusy() ? POLL_MS : IDLE_POLL_MS);
  }

  async #ask(): Promise<Look | undefined> {
    const askedMs = performance.now();
    const answer = await this.#options.run('squeue', queueArguments(this.#options.user));
    if (this.#closed) return undefined;
    const jobs = jobsOf(answer);
    this.#setReason(typeof jobs === 'string' ? jobs : undefined);
    if (typeof jobs === 'string') return undefined;
    const look = { jobs, askedMs };
    for (const listener of this.#onLook) listener(look);
    return look;
  }

  #setReason(message: string | undefined): void {
    const reason = message === undefined ? undefined : `the controller does not answer: ${message}`;
    const changed = (reason === undefined) !== (this.#reason === undefined);
    this.#reason = reason;
    if (!changed) return;
    if (reason === undefined) this.#options.logger.info('Slurm answers');
    else this.#options.logger.warn({ reason }, 'Slurm is away');
    for (const listener of this.#onChange) listener();
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= MAX_AT_ONCE) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#running++;
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#running--;
      else next();
    }
  }
}

/** The jobs, or why there are none to be had. */
function jobsOf(answer: ToolAnswer): Map<string, ClusterJob> | string {
  if (answer.kind !== 'done') return answer.message;
  try {
    return parseQueue(answer.stdout);
  } catch (error) {
    return (error as Error).message;
  }
}
