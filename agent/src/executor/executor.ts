import type { ExecutionError } from '@harrier/shared/gen/error';
import type { Assignment } from '@harrier/shared/gen/link';
import type { PreparedEnvironment } from '../environment/environment.ts';

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
  /** Its code has certainly not begun. Absent: it may have. */
  neverStarted?: true;
}

/** What the log, the metrics and traces say of an attempt. Absent: not known, as where an older agent has kept it. */
export interface AboutAttempt {
  tenant?: string;
  taskClass?: string;
  /** Kind of its environment. */
  environment?: string;
  /** Place in a trace, as it was assigned; empty: it is not traced. */
  traceParent?: string;
}

/** An attempt that a keeper still has. */
export interface HeldByExecutor extends AttemptKey, AboutAttempt {
  finished: boolean;
  /** Whether its code has started, as far as the keeper knows by now; absent: it may have. */
  started?: boolean;
  /** GPUs that were reserved for it. Absent: none. */
  gpuUuids?: readonly string[];
}

/**
 * Has attempts. Their output and results stay with it until they are acknowledged, so that whoever asks for them may
 * restart at any time.
 */
export interface AttemptKeeper {
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

/** Runs attempts of one kind. */
export interface Executor extends AttemptKeeper {
  /** `process`: what the launcher runs; `docker`: what has a container of its own; `slurm`: what is a job of a cluster. */
  readonly kind: 'process' | 'docker' | 'slurm';
  /**
   * The environment of an attempt is being made, and its start follows, or `forget`. For an executor of whose attempts the control
   * plane cannot tell after a restart of the agent that they have not started: it keeps them, and gives them back then.
   */
  preparing?(assignment: Assignment): void;
  /**
   * Starts an attempt; `onStarted`, `onOutput` and `onFinished` follow in this order. A second start of a known attempt
   * does nothing. Answers why it cannot be started, then no event follows.
   * @param prepared held by the caller until the attempt has ended
   * @param prelude what the preparation wrote: the first bytes of standard error, which were sent already. They count in
   *   its offsets, not against its limit, and are sent again only after a `replay`
   */
  start(assignment: Assignment, prepared: PreparedEnvironment, prelude: Uint8Array): StartRefusal | undefined;
}

/** The kind of executor that runs an assignment. */
export function executorKind({ program, environment, slurm }: Assignment): Executor['kind'] {
  if (slurm !== undefined) return 'slurm';
  if (program.case === 'image') return 'docker';
  return environment?.kind.case === 'docker' && program.case !== 'python' ? 'docker' : 'process';
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
  /**
   * The keeper works, and has these attempts.
   * @param isAnother what it has is not in the same hands as before: an attempt that was handed to it and is not listed may have
   *   run. Default: such an attempt has never reached it
   */
  onRecovered(keeper: AttemptKeeper, held: readonly HeldByExecutor[], isAnother?: boolean): void;
  /** The keeper cannot be reached; `onRecovered` follows when it can. */
  onLost(keeper: AttemptKeeper): void;
}
