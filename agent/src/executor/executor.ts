import type { ExecutionError } from '@harrier/shared/gen/error';
import type { Assignment } from '@harrier/shared/gen/link';

/** Names one attempt. */
export interface AttemptKey {
  executionId: string;
  attempt: number;
}

/** Why an attempt is stopped: a caller asked for it, or the agent stops. */
export type CancelReason = 'cancel' | 'shutdown';

/** How an attempt ended. */
export interface AttemptEnd {
  outcome: 'succeeded' | 'failed' | 'timed_out' | 'cancelled';
  /** Undefined exactly when it succeeded. */
  error: Pick<ExecutionError, 'code' | 'message' | 'details'> | undefined;
  exitCode: number | undefined;
  /** JSON text; empty unless it succeeded. */
  output: Uint8Array;
  runMs: number;
  cpuMs: number;
  maxRssBytes: number;
  /** Lengths of the streams. */
  stdoutBytes: number;
  stderrBytes: number;
  stdoutTruncated: boolean;
  stderrTruncated: boolean;
}

/** An attempt that an executor still has. */
export interface HeldByExecutor extends AttemptKey {
  finished: boolean;
}

/**
 * Runs attempts of one environment. Output and results stay with the executor until they are acknowledged, so that
 * whoever asks for them may restart at any time.
 */
export interface Executor {
  /** The environment that it runs, as in `Hello.environments`. */
  readonly kind: string;
  /**
   * Starts an attempt; `onStarted`, `onOutput` and `onFinished` follow in this order. A second start of a known attempt
   * does nothing. Answers why it cannot be started, then no event follows.
   */
  start(assignment: Assignment): StartRefusal | undefined;
  /** Asks the attempt to stop, and kills it after the grace; `onFinished` follows. Does nothing when it has ended. */
  cancel(key: AttemptKey, reason: CancelReason, graceMs: number): void;
  /** Output before these offsets is stored elsewhere and not sent again. */
  acknowledgeOutput(key: AttemptKey, stdoutOffset: number, stderrOffset: number): void;
  /** The result is stored elsewhere, or not wanted: the attempt is forgotten. */
  forget(key: AttemptKey): void;
  /**
   * Asks for `onRecovered` and then for every byte and result that is not acknowledged, once more. What was sent before
   * and is still under way arrives before `onRecovered`.
   */
  replay(): void;
}

/** Why an attempt was not started. */
export interface StartRefusal {
  error: Pick<ExecutionError, 'code' | 'message'>;
  /** Another agent may take it. */
  requeue: boolean;
}

/** What executors tell. Output of one stream comes in order of offset, and all of it before `onFinished`. */
export interface ExecutorEvents {
  onStarted(key: AttemptKey): void;
  /** At most 64 KiB. */
  onOutput(key: AttemptKey, stream: 'stdout' | 'stderr', offset: number, data: Uint8Array): void;
  onProgress(key: AttemptKey, percent: number, step: string): void;
  /** Again after each `replay`, until the attempt is forgotten. */
  onFinished(key: AttemptKey, end: AttemptEnd): void;
  /** The executor works, and has these attempts. */
  onRecovered(executor: Executor, held: readonly HeldByExecutor[]): void;
  /** The executor cannot be reached; `onRecovered` follows when it can. */
  onLost(executor: Executor): void;
}
