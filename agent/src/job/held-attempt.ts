import type { AttemptKey, Executor } from '../executor/executor.ts';

/**
 * Where an attempt stands on this agent:
 *
 *   assigned ──started──▶ running ──ended──▶ finished ──result stored──▶ (forgotten)
 *      └────────────ended─────────────────────▲
 *   assigned, running ──dropped──▶ dropping ──ended──▶ (forgotten)
 *
 * - assigned: handed to its executor;
 * - running: its code runs;
 * - finished: its result is ready, and sent again after each new link until the control plane has stored it;
 * - dropping: the control plane does not want it any more; it is being stopped and nothing of it is sent.
 */
export type HeldState = 'assigned' | 'running' | 'finished' | 'dropping';

const NEXT: Readonly<Record<HeldState, readonly HeldState[]>> = {
  assigned: ['running', 'finished', 'dropping'],
  running: ['finished', 'dropping'],
  finished: [],
  dropping: [],
};

/** An attempt that this agent holds, from its assignment until it is forgotten. */
export class HeldAttempt implements AttemptKey {
  readonly executionId: string;
  readonly attempt: number;
  readonly executor: Executor;
  /** Empty when the attempt was found at the start of the agent. */
  readonly tenant: string;
  readonly taskClass: string;
  readonly #arrivedAtMs: number | undefined;
  /** From arrival to the start of the code; 0 when the attempt was found at the start of the agent. */
  prepareMs = 0;
  /** What the control plane has said to have stored of its output. */
  storedStdoutBytes = 0;
  storedStderrBytes = 0;
  /** Set when a stop was asked for, so that it can be asked for again. */
  cancelGraceMs: number | undefined;
  /** It is stopped because the agent stops; nobody asked for its cancellation. */
  endsWithAgent = false;
  /** The executor was asked for what it has before this attempt was handed to it, and need not list it in its answer. */
  askedBefore: number;
  #state: HeldState;

  constructor(
    key: AttemptKey,
    executor: Executor,
    from: { state: HeldState; tenant?: string; taskClass?: string; arrivedAtMs?: number; askedBefore: number },
  ) {
    this.executionId = key.executionId;
    this.attempt = key.attempt;
    this.executor = executor;
    this.tenant = from.tenant ?? '';
    this.taskClass = from.taskClass ?? 'unknown';
    this.#arrivedAtMs = from.arrivedAtMs;
    this.askedBefore = from.askedBefore;
    this.#state = from.state;
  }

  get state(): HeldState {
    return this.#state;
  }

  /** Whether it occupies a slot. */
  get active(): boolean {
    return this.#state !== 'finished';
  }

  start(nowMs: number): void {
    this.#setState('running');
    if (this.#arrivedAtMs !== undefined) this.prepareMs = nowMs - this.#arrivedAtMs;
  }

  finish(): void {
    this.#setState('finished');
  }

  drop(): void {
    this.#setState('dropping');
  }

  #setState(next: HeldState): void {
    if (!NEXT[this.#state].includes(next)) {
      throw new Error(`attempt ${this.attempt} of ${this.executionId} cannot go from ${this.#state} to ${next}`);
    }
    this.#state = next;
  }
}
