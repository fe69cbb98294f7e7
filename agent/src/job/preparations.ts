import { messageOf } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Assignment } from '@harrier/shared/gen/link';
import {
  EnvironmentError,
  type EnvironmentProvider,
  type EnvironmentRequest,
  type PreparedEnvironment,
} from '../environment/environment.ts';
import type { AttemptEnd, AttemptKeeper, AttemptKey, ExecutorEvents } from '../executor/executor.ts';
import { PreparationOutput } from './preparation-output.ts';

/** Longer than the largest image over a slow line; whatever takes longer hangs, and would hold its slot for good. */
const TIMEOUT_MS = 30 * 60_000;

type Failure = NonNullable<AttemptEnd['error']>;

/** What preparations tell, beside what executors tell of their attempts. */
export interface PreparationsEvents extends ExecutorEvents {
  /** A lock waits for its decision. Again after each `replay`, until it is decided. */
  onLockFound(key: AttemptKey, lock: string, platform: string): void;
  /** As that of `PreparationEvents`. */
  onGpusTaken(key: AttemptKey, gone: Promise<void>): void;
  /**
   * The environment is there and everything that its preparation wrote was sent: the attempt leaves, and its environment
   * with it. Answers why the attempt cannot run at all; then it stays, and ends with that.
   */
  onPrepared(assignment: Assignment, prepared: PreparedEnvironment, prelude: Uint8Array): Failure | undefined;
  /**
   * Nothing was prepared, and another agent may: the attempt leaves when the control plane could be told, which is answered.
   * Again after each `replay` until then.
   */
  onRefused(key: AttemptKey, failure: Failure): boolean;
}

/**
 * One attempt that is kept here:
 *
 *   preparing ──environment is there──▶ prepared ──output sent──▶ (handed over)
 *       ├──failed, cancelled, too late──▶ ended ◀──cancelled──┘
 *       └──no room──▶ refused ──told──▶ (handed back)
 *   ended ──output sent──▶ told, again after each replay ──▶ (forgotten)
 */
interface Preparation {
  key: AttemptKey;
  assignment: Assignment;
  output: PreparationOutput;
  abort: AbortController;
  timer: NodeJS.Timeout;
  progress: { percent: number; step: string } | undefined;
  /** The lock that waits for its decision. */
  question: { lock: string; platform: string; decided: PromiseWithResolvers<string> } | undefined;
  prepared: PreparedEnvironment | undefined;
  refusal: Failure | undefined;
  end: Pick<AttemptEnd, 'outcome' | 'error'> | undefined;
}

/** Attempts whose environment is being prepared, and those that ended with it until their result is stored. */
export class Preparations implements AttemptKeeper {
  readonly #events: PreparationsEvents;
  readonly #all = new Map<string, Preparation>();

  constructor(events: PreparationsEvents) {
    this.#events = events;
  }

  /** Prepares the environment of an attempt that is not known here yet. Events may come from within. */
  start(key: AttemptKey, assignment: Assignment, provider: EnvironmentProvider, request: EnvironmentRequest): void {
    const preparation: Preparation = {
      key,
      assignment,
      output: new PreparationOutput((offset, data) => this.#events.onOutput(key, 'stderr', offset, data)),
      abort: new AbortController(),
      timer: setTimeout(() => this.#timedOut(preparation), TIMEOUT_MS).unref(),
      progress: undefined,
      question: undefined,
      prepared: undefined,
      refusal: undefined,
      end: undefined,
    };
    this.#all.set(keyOf(key), preparation);
    void this.#prepare(preparation, provider, request);
  }

  /** Ends at once, whatever the grace: no code of the caller runs yet. */
  cancel(key: AttemptKey): void {
    const preparation = this.#all.get(keyOf(key));
    if (preparation === undefined) return;
    const error = { code: Code.CANCELLED, message: 'cancelled while its environment was being prepared' };
    this.#end(preparation, { outcome: 'cancelled', error });
  }

  acknowledgeOutput(key: AttemptKey, _stdoutOffset: number, stderrOffset: number): void {
    const preparation = this.#all.get(keyOf(key));
    if (preparation === undefined) return;
    const before = preparation.output.drained;
    preparation.output.acknowledge(stderrOffset);
    if (!before) this.#settle(preparation);
  }

  forget(key: AttemptKey): void {
    if (this.#all.get(keyOf(key))?.end !== undefined) this.#all.delete(keyOf(key));
  }

  replay(): void {
    const all = [...this.#all.values()];
    const held = all.map(({ key, end }) => ({ ...key, finished: end !== undefined }));
    this.#events.onRecovered(this, held);
    for (const preparation of all) {
      const { key, output, progress, question } = preparation;
      output.rewind();
      if (progress !== undefined) this.#events.onProgress(key, progress.percent, progress.step);
      if (question !== undefined) this.#events.onLockFound(key, question.lock, question.platform);
      output.send();
      this.#settle(preparation);
    }
  }

  /** The control plane's answer to `onLockFound`; one that nobody waits for changes nothing. */
  lockDecided(key: AttemptKey, lock: string): void {
    const preparation = this.#all.get(keyOf(key));
    const question = preparation?.question;
    if (preparation === undefined || question === undefined) return;
    preparation.question = undefined;
    question.decided.resolve(lock);
  }

  /** Leaves every preparation; what has not ended is answered, and not kept any more. */
  abandon(reason: Error): AttemptKey[] {
    const left = [...this.#all.values()].filter(({ end }) => end === undefined);
    for (const preparation of left) {
      this.#all.delete(keyOf(preparation.key));
      this.#leave(preparation, reason);
    }
    return left.map(({ key }) => key);
  }

  async #prepare(preparation: Preparation, provider: EnvironmentProvider, request: EnvironmentRequest): Promise<void> {
    const { key, output, abort } = preparation;
    const { signal } = abort;
    const events = {
      onOutput: (data: Uint8Array) => {
        if (isPreparing(preparation)) output.append(data);
      },
      onProgress: (percent: number, step: string) => {
        if (!isPreparing(preparation)) return;
        preparation.progress = { percent, step };
        this.#events.onProgress(key, percent, step);
      },
      decideLock: (lock: string, platform: string) => this.#decideLock(preparation, lock, platform),
      onGpusTaken: (gone: Promise<void>) => this.#events.onGpusTaken(key, gone),
    };
    try {
      const prepared = await provider.prepare(request, events, signal);
      if (signal.aborted) {
        prepared.release();
        return;
      }
      clearTimeout(preparation.timer);
      preparation.prepared = prepared;
      this.#settle(preparation);
    } catch (error) {
      if (isRefusal(error)) this.#refuse(preparation, failureOf(error));
      else this.#end(preparation, { outcome: 'failed', error: failureOf(error) });
    }
  }

  #decideLock(preparation: Preparation, lock: string, platform: string): Promise<string> {
    const { signal } = preparation.abort;
    if (signal.aborted) return Promise.reject(signal.reason);
    const decided = Promise.withResolvers<string>();
    // Whoever asks may have left with the signal before the answer.
    decided.promise.catch(() => {});
    preparation.question = { lock, platform, decided };
    this.#events.onLockFound(preparation.key, lock, platform);
    return decided.promise;
  }

  #timedOut(preparation: Preparation): void {
    const message = `the environment was not ready after ${TIMEOUT_MS / 60_000} minutes`;
    this.#end(preparation, { outcome: 'failed', error: { code: Code.ENVIRONMENT_FAILED, message } });
  }

  #refuse(preparation: Preparation, failure: Failure): void {
    if (preparation.end !== undefined || !this.#keeps(preparation)) return;
    preparation.refusal = failure;
    clearTimeout(preparation.timer);
    this.#settle(preparation);
  }

  #end(preparation: Preparation, end: NonNullable<Preparation['end']>): void {
    if (preparation.end !== undefined || !this.#keeps(preparation)) return;
    preparation.end = end;
    this.#leave(preparation, new Error(end.error?.message));
    this.#settle(preparation);
  }

  /** Leaves the provider's work to others, and the environment if it is there. */
  #leave(preparation: Preparation, reason: Error): void {
    clearTimeout(preparation.timer);
    preparation.abort.abort(reason);
    preparation.question?.decided.reject(reason);
    preparation.question = undefined;
    preparation.prepared?.release();
    preparation.prepared = undefined;
  }

  /** Goes on when all output is sent: with the code's start, or with the news of the end. */
  #settle(preparation: Preparation): void {
    const { key, assignment, output, prepared, refusal, end } = preparation;
    if (!this.#keeps(preparation) || !output.drained) return;
    if (end !== undefined) {
      this.#events.onFinished(key, attemptEnd(end, output));
      return;
    }
    if (refusal !== undefined && this.#events.onRefused(key, refusal)) this.#all.delete(keyOf(key));
    if (prepared === undefined) return;
    const failure = this.#events.onPrepared(assignment, prepared, output.bytes);
    if (failure === undefined) this.#all.delete(keyOf(key));
    else this.#end(preparation, { outcome: 'failed', error: failure });
  }

  #keeps(preparation: Preparation): boolean {
    return this.#all.get(keyOf(preparation.key)) === preparation;
  }
}

function isPreparing({ end, prepared }: Preparation): boolean {
  return end === undefined && prepared === undefined;
}

function isRefusal(error: unknown): boolean {
  return error instanceof EnvironmentError && error.elsewhere;
}

function keyOf({ executionId, attempt }: AttemptKey): string {
  return `${executionId}/${attempt}`;
}

function failureOf(error: unknown): Failure {
  if (error instanceof EnvironmentError) return { code: error.code, message: error.message };
  return { code: Code.INTERNAL, message: `the environment could not be prepared: ${messageOf(error)}` };
}

function attemptEnd({ outcome, error }: NonNullable<Preparation['end']>, output: PreparationOutput): AttemptEnd {
  return {
    outcome,
    error,
    exitCode: undefined,
    output: new Uint8Array(0),
    runMs: 0,
    cpuMs: 0,
    maxRssBytes: 0,
    stdoutBytes: 0,
    stderrBytes: output.length,
    stdoutTruncated: false,
    stderrTruncated: output.truncated,
  };
}
