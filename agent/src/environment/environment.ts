import type { ExecutionError_Code } from '@harrier/shared/gen/error';
import type { Environment } from '@harrier/shared/gen/module';
import type { StartEnvironment } from '../launcher/messages.ts';
import type { TaskEvents } from '../tasks/shared-tasks.ts';

/** An environment that code is to run in. */
export interface EnvironmentRequest {
  /** Nothing that is prepared is ever shared between two tenants. */
  tenant: string;
  environment: Environment;
  /** `python`, `nodejs`, `go`, or empty for a command. */
  language: string;
  /** Python modules to import before the first call. */
  preload: readonly string[];
  /**
   * Locks that were decided for the module version, by platform; the empty name stands for every platform. They are the
   * control plane's: no caller can set them. Absent: none.
   */
  decidedLocks?: Readonly<Record<string, string>>;
  /** Processors for the code, where the environment bounds them (`docker`); absent or 0: all. */
  cpu?: number;
  /** Cards that the code sees, where the environment gives them (`docker`); absent: none. */
  gpuUuids?: readonly string[];
  /** No interpreter is started in it: it becomes a part of something else. */
  partOnly?: true;
}

/** An environment that code can run in now. Held until `release`. */
export interface PreparedEnvironment {
  /** What the launcher's `start` gets; undefined for inline. */
  readonly start: StartEnvironment | undefined;
  /** What is installed, where the request came without a lock and nothing had to be prepared. Absent otherwise. */
  readonly lock?: string;
  /** What the lock holds for, as in `decideLock`. */
  readonly platform?: string;
  /**
   * The program that runs source text of the request's language, where that is none that the launcher has warm.
   * @param memoryBytes what the code may use; 0: no limit
   */
  readonly scriptCommand?: (memoryBytes: number) => readonly string[];
  /** It may be evicted from now on, when nobody else holds it. Safe to call twice. */
  release(): void;
}

/** What a preparation tells while it goes on. A caller that comes to one that goes on is told from its start. */
export interface PreparationEvents extends TaskEvents {
  /**
   * A lock was found, for agents of a platform (empty: of every one). Answers the lock to install, which another agent may have found first. Waits as long as the control
   * plane is away; rejects with the reason of the preparation's signal.
   */
  decideLock(lock: string, platform: string): Promise<string>;
  /**
   * What is prepared has the request's GPUs from now on, whether the preparation succeeds or not. Never after an abort.
   * @param gone resolves when nothing has them any more: after `release`, a failure, or an abort
   */
  onGpusTaken(gone: Promise<void>): void;
}

/** What `resolve` finds. */
export interface ResolvedEnvironment {
  /** Text of the lock; the image with its digest for docker. */
  lock: string;
  /** What it holds for, as in `decideLock`. */
  platform: string;
  /** Bytes to download and install, as far as the index tells; 0: unknown. */
  sizeBytes: number;
  /** It is prepared already for this tenant. */
  held: boolean;
}

/** Prepares environments of one kind; `nodejs` is `inline` for code in Node.js. One preparation of the same environment goes on at a time, however many ask for it. */
export interface EnvironmentProvider {
  readonly kind: 'inline' | 'nodejs' | 'venv' | 'conda' | 'docker';
  /** Why this host cannot prepare it now; undefined when it can. May change: the agent is then told (`onSupportChange`). */
  unavailable(): string | undefined;
  /** The environment, held, when it is there already: starts no process, takes less than 5 ms. */
  prepared(request: EnvironmentRequest): PreparedEnvironment | undefined;
  /**
   * Why what is not `prepared` cannot be prepared now, though another agent may: no room. At once. Absent where that
   * cannot be told at once: `prepare` then rejects with an error that is `elsewhere`.
   */
  refusal?(): string | undefined;
  /**
   * Prepares the environment and holds it. An abort leaves the preparation to others that wait for it; it is stopped when
   * nobody does.
   * @throws EnvironmentError; the signal's reason when aborted
   */
  prepare(request: EnvironmentRequest, events: PreparationEvents, signal: AbortSignal): Promise<PreparedEnvironment>;
  /**
   * Finds the lock without installing anything.
   * @throws EnvironmentError; the signal's reason when aborted
   */
  resolve(request: EnvironmentRequest, signal: AbortSignal): Promise<ResolvedEnvironment>;
  /**
   * Holds everything that is there: for an attempt of a former agent, of which nobody knows what it runs in. Absent where
   * what runs is never evicted.
   */
  holdAll?(): Pick<PreparedEnvironment, 'release'>;
}

type FailureCode = typeof ExecutionError_Code.ENVIRONMENT_FAILED | typeof ExecutionError_Code.POLICY_DENIED;

/** Why an environment cannot be had. The message is for the caller: the resolver's own words, or the rule that denies it. */
export class EnvironmentError extends Error {
  readonly code: FailureCode;
  /** Nothing was begun, for want of room: another agent may have some. */
  readonly elsewhere: boolean;

  constructor(code: FailureCode, message: string, options: ErrorOptions & { elsewhere?: boolean } = {}) {
    super(message, options);
    this.name = 'EnvironmentError';
    this.code = code;
    this.elsewhere = options.elsewhere ?? false;
  }
}
