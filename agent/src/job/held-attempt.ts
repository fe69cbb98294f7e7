import type { PreparedEnvironment } from '../environment/environment.ts';
import type { AttemptKeeper, AttemptKey } from '../executor/executor.ts';
import type { AttemptTrace } from './attempt-trace.ts';

/**
 * Where an attempt stands on this agent:
 *
 *   preparing ──environment is there──▶ assigned ──started──▶ running ──ended──▶ finished ──result stored──▶ (forgotten)
 *       └──────────────┬───────────────────┴────────ended──────────────────────────▲
 *                      └──given back──▶ (forgotten)
 *   preparing, assigned, running ──dropped──▶ dropping ──ended──▶ (forgotten)
 *
 * - preparing: its environment is being made; an attempt whose environment is there begins as assigned;
 * - assigned: handed to its executor;
 * - running: its code runs;
 * - finished: its result is ready, and sent again after each new link until the control plane has stored it;
 * - dropping: the control plane does not want it any more; it is being stopped and nothing of it is sent.
 */
export type HeldState = 'preparing' | 'assigned' | 'running' | 'finished' | 'dropping';

const NEXT: Readonly<Record<HeldState, readonly HeldState[]>> = {
  preparing: ['assigned', 'finished', 'dropping'],
  assigned: ['running', 'finished', 'dropping'],
  running: ['finished', 'dropping'],
  finished: [],
  dropping: [],
};

/** Where an attempt comes from. */
export interface HeldFrom {
  state: HeldState;
  tenant?: string;
  taskClass?: string;
  environment?: string;
  arrivedAtMs?: number;
  maxDisconnectMs?: number;
  /** It is a job of Slurm, and runs elsewhere. */
  isJob?: boolean;
  /** It was found at the start of the agent. */
  isFound?: boolean;
  prepared?: PreparedEnvironment;
  trace?: AttemptTrace | undefined;
  traceParent?: string;
  gpuUuids?: readonly string[];
  askedBefore: number;
}

/** An attempt that this agent holds, from its assignment until it is forgotten. */
export class HeldAttempt implements AttemptKey {
  readonly executionId: string;
  readonly attempt: number;
  /** Empty when the attempt was found at the start of the agent by a keeper that does not know it. */
  readonly tenant: string;
  /** `unknown` then. */
  readonly taskClass: string;
  /** Kind of its environment; `unknown` then. */
  readonly environment: string;
  /** Undefined when the attempt was found at the start of the agent. */
  readonly arrivedAtMs: number | undefined;
  /** How long it may run on after the lease has ended; 0 also when the attempt was found at the start of the agent. */
  readonly maxDisconnectMs: number;
  /** Undefined where nothing is traced, or when the attempt was found at the start of the agent. */
  readonly trace: AttemptTrace | undefined;
  /** Place of the attempt in a trace, as it was assigned; empty: none is known. */
  readonly traceParent: string;
  /** What it has until it has ended. */
  readonly gpuUuids: readonly string[];
  /** Resolves when what was prepared for it has them no more; undefined: what was prepared never had them. */
  gpusGone: Promise<void> | undefined;
  /** It is a job of Slurm: it takes no slot, and goes on without this agent. */
  readonly isJob: boolean;
  #keeper: AttemptKeeper;
  #prepared: PreparedEnvironment | undefined;
  /**
   * From arrival to the start of the code, or to the end of the preparation when that was the end; 0 when the attempt was
   * found at the start of the agent.
   */
  prepareMs = 0;
  /** What the control plane has said to have stored of its output. */
  storedStdoutBytes = 0;
  storedStderrBytes = 0;
  /** What it has written is gone, here and at the control plane: it can only be started anew. */
  isOutputLost = false;
  /** Bytes that the control plane has or was sent by this link; those of an attempt that was found are not known before a link. */
  readonly #reached: { stdout: number; stderr: number };
  /** Set when a stop was asked for, so that it can be asked for again. */
  cancelGraceMs: number | undefined;
  /** Why it is stopped although nobody asked for its cancellation. */
  stopReason: string | undefined;
  /** The keeper was asked for what it has before this attempt was handed to it, and need not list it in its answer. */
  askedBefore: number;
  #state: HeldState;
  #hasBegun: boolean;

  constructor(key: AttemptKey, keeper: AttemptKeeper, from: HeldFrom) {
    this.executionId = key.executionId;
    this.attempt = key.attempt;
    this.#keeper = keeper;
    this.#prepared = from.prepared;
    this.tenant = from.tenant ?? '';
    this.taskClass = from.taskClass ?? 'unknown';
    this.environment = from.environment ?? 'unknown';
    this.arrivedAtMs = from.arrivedAtMs;
    this.maxDisconnectMs = from.maxDisconnectMs ?? 0;
    this.trace = from.trace;
    this.traceParent = from.traceParent ?? '';
    this.gpuUuids = from.gpuUuids ?? [];
    this.isJob = from.isJob ?? false;
    this.askedBefore = from.askedBefore;
    this.#state = from.state;
    this.#hasBegun = from.state === 'running' || from.state === 'finished';
    const isNew = from.isFound !== true && (from.state === 'preparing' || from.state === 'assigned');
    const reached = isNew ? 0 : Number.POSITIVE_INFINITY;
    this.#reached = { stdout: reached, stderr: reached };
  }

  get state(): HeldState {
    return this.#state;
  }

  /** Who has the attempt now: its preparation, then its executor. */
  get keeper(): AttemptKeeper {
    return this.#keeper;
  }

  /** Whether its code is known to have begun; one that was found with its end is taken for one that did. */
  get hasBegun(): boolean {
    return this.#hasBegun;
  }

  /** Whether it has not ended; on this host, it occupies a slot. */
  get active(): boolean {
    return this.#state !== 'finished';
  }

  /** Bytes of its output that the control plane has or was sent. */
  get reachedBytes(): { stdout: number; stderr: number } {
    return { ...this.#reached };
  }

  /** A new link goes on from what the control plane has stored. */
  resumeFrom(stdoutBytes: number, stderrBytes: number): void {
    this.#reached.stdout = stdoutBytes;
    this.#reached.stderr = stderrBytes;
  }

  /** Output is about to be sent. @returns false when bytes before it are missing: then it must not be */
  reach(stream: 'stdout' | 'stderr', offset: number, bytes: number): boolean {
    if (offset > this.#reached[stream]) return false;
    this.#reached[stream] = Math.max(this.#reached[stream], offset + bytes);
    return true;
  }

  /** Its environment is there, and is held until `release`. */
  handOver(executor: AttemptKeeper, prepared: PreparedEnvironment, askedBefore: number): void {
    this.#setState('assigned');
    this.#keeper = executor;
    this.#prepared = prepared;
    this.askedBefore = askedBefore;
  }

  start(nowMs: number): void {
    this.#setState('running');
    this.#hasBegun = true;
    this.#setPrepareMs(nowMs);
  }

  finish(nowMs: number): void {
    if (this.#state === 'preparing') this.#setPrepareMs(nowMs);
    this.#setState('finished');
    this.release();
  }

  /** Nothing of it needs its environment any more. */
  release(): void {
    this.#prepared?.release();
    this.#prepared = undefined;
  }

  drop(): void {
    this.#setState('dropping');
  }

  #setPrepareMs(nowMs: number): void {
    if (this.arrivedAtMs !== undefined) this.prepareMs = nowMs - this.arrivedAtMs;
  }

  #setState(next: HeldState): void {
    if (!NEXT[this.#state].includes(next)) {
      throw new Error(`attempt ${this.attempt} of ${this.executionId} cannot go from ${this.#state} to ${next}`);
    }
    this.#state = next;
  }
}
