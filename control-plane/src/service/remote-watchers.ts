import type { BusMessage } from '../replica/bus-message.ts';
import type { BusTarget } from '../replica/replica-bus.ts';
import { ASKED_FOR_MS } from './followed-elsewhere.ts';
import { nextChange } from './next-change.ts';
import type { TrackedExecution } from './tracked-execution.ts';

/** Changes that come together are told together. */
const GATHER_MS = 20;
const FORGET_MS = 5_000;

interface Watched {
  /** Until when each replica wants to be told. */
  until: Map<string, number>;
  /** What is being told of. */
  telling: TrackedExecution | undefined;
}

export interface RemoteWatchersOptions {
  /** What this replica follows. */
  get: (id: string) => TrackedExecution | undefined;
  send: (to: BusTarget, message: BusMessage) => void;
}

/** Tells other replicas of the executions that are followed here and watched there. */
export class RemoteWatchers {
  readonly #options: RemoteWatchersOptions;
  readonly #watched = new Map<string, Watched>();
  readonly #stopping = new AbortController();
  readonly #timer: NodeJS.Timeout;

  constructor(options: RemoteWatchersOptions) {
    this.#options = options;
    this.#timer = setInterval(() => this.#forget(), FORGET_MS);
    this.#timer.unref();
  }

  /**
   * A replica wants to be told of an execution for a while.
   * @param tell at once, what has happened so far
   */
  watch(id: string, replica: string, tell: boolean): void {
    const watched = this.#watched.get(id) ?? { until: new Map(), telling: undefined };
    this.#watched.set(id, watched);
    watched.until.set(replica, performance.now() + ASKED_FOR_MS);
    const tracked = this.#options.get(id);
    if (tell) this.#send(id, tracked, [replica], 0);
    if (tracked !== undefined) this.#tell(tracked, watched, tracked.history.length);
  }

  /** An execution is followed here from now on. */
  tracked(tracked: TrackedExecution): void {
    const watched = this.#watched.get(tracked.id);
    if (watched !== undefined) this.#tell(tracked, watched, 0);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#stopping.abort();
  }

  #tell(tracked: TrackedExecution, watched: Watched, fromStep: number): void {
    if (watched.telling === tracked) return;
    watched.telling = tracked;
    // Only a stop of the process ends the wait for a change.
    this.#follow(tracked, watched, fromStep).catch(() => undefined);
  }

  async #follow(tracked: TrackedExecution, watched: Watched, fromStep: number): Promise<void> {
    let step = fromStep;
    let over = this.#isOver(tracked);
    // What is asked for before it is told cannot be missed.
    let wake = nextChange(tracked, this.#stopping.signal);
    wake.catch(() => undefined);
    while (!over && watched.until.size > 0) {
      await wake;
      if (!tracked.finished) await new Promise((resolve) => setTimeout(resolve, GATHER_MS));
      wake = nextChange(tracked, this.#stopping.signal);
      wake.catch(() => undefined);
      over = this.#isOver(tracked);
      this.#send(tracked.id, tracked, watched.until.keys(), step);
      step = tracked.history.length;
    }
    if (watched.telling === tracked) watched.telling = undefined;
  }

  #isOver(tracked: TrackedExecution): boolean {
    return tracked.finished || this.#options.get(tracked.id) !== tracked;
  }

  #send(id: string, tracked: TrackedExecution | undefined, to: Iterable<string>, fromStep: number): void {
    const progress = tracked?.progress;
    const steps = tracked?.history.slice(fromStep) ?? [];
    const over = tracked === undefined || this.#isOver(tracked);
    const change = { id, steps, ...(progress !== undefined && { progress }), over };
    for (const replica of to) this.#options.send(replica, { type: 'changed', ...change });
  }

  #forget(): void {
    const nowMs = performance.now();
    for (const [id, { until, telling }] of this.#watched) {
      for (const [replica, untilMs] of until) if (untilMs < nowMs) until.delete(replica);
      if (until.size === 0 && telling === undefined) this.#watched.delete(id);
    }
  }
}
