import { setTimeout as pause } from 'node:timers/promises';
import { failpoint } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { CreateExecutionRequest } from '@harrier/shared/gen/execution';
import { advance } from './advance.ts';
import { nextDueMs } from './clock.ts';
import { applyStep, type EndedInstance, type StepLog } from './draft.ts';
import { type CheckInput, compute, decide, executionRequest } from './evaluate.ts';
import { executionKey } from './execution-key.ts';
import { ExpressionError } from './expression.ts';
import type { RunEvent } from './run-event.ts';
import { charsOf, MAX_STEP_CHARS } from './run-limits.ts';
import {
  type EndState,
  type Instance,
  isFinal,
  type NodeError,
  nodeOf,
  ROOT,
  type Run,
  type Stored,
} from './run-state.ts';
import type { RunValues } from './run-values.ts';

/** How an execution ended. */
export interface Outcome {
  executionId: string;
  state: EndState;
  outputJson: string;
  error: NodeError | undefined;
}

/** The executions of a run, as the rest of the control plane offers them. */
export interface Executions {
  /**
   * Follows it to its end; accepts it, unless it was accepted before. The same key is the same execution, whoever asks.
   * @throws RefusedError when it cannot be run at all, or is unwanted, and what making the request throws. It was not accepted
   *   then, also not by a process that is gone. Anything else is tried again
   */
  run(tenantId: string, asked: Asked, options: RunOptions): Promise<Outcome>;
  /** Asks it to stop; its end follows. */
  cancel(tenantId: string, id: string): Promise<void>;
}

/** An execution that a node wants. */
export interface Asked {
  key: string;
  /** It may have been accepted already: by a process that is gone, or by a call whose answer was lost. */
  before: boolean;
  /** Makes the request with the key. Called only when there is no execution yet: later it may have another value, or none. */
  request: () => Promise<CreateExecutionRequest>;
}

export interface RunOptions {
  onAccepted: (id: string) => void;
  /** Nobody follows it any more. */
  signal: AbortSignal;
  /** It is not to be started, if it was not yet. */
  unwanted: AbortSignal;
}

/** A request that will be refused however often it is made. */
export class RefusedError extends Error {
  readonly nodeError: NodeError;

  constructor(nodeError: NodeError) {
    super(nodeError.message);
    this.nodeError = nodeError;
  }
}

/** What a step has changed, in the form in which it is stored. */
export interface Stepped {
  run: Run;
  changed: readonly Instance[];
  log: readonly (StepLog & { ms: number })[];
  /** What is over by it. */
  ended: readonly EndedInstance[];
  /** Ids of words of callers that it has taken into account. */
  heard: readonly number[];
}

export interface RunActorOptions {
  run: Run;
  tenantId: string;
  values: RunValues;
  labels: Readonly<Record<string, string>>;
  executions: Executions;
  checkInput: CheckInput;
  /** The time by which waits and timeouts are measured, the same for all replicas: milliseconds since 1970. */
  nowMs: () => number;
  /** Stores a step; tries as long as it takes. @returns false when another replica advances the run */
  store: (step: Stepped, signal: AbortSignal) => Promise<boolean>;
  /** Something was stored. @param ended what is over by it: each end is told once */
  onStored: (ended: readonly EndedInstance[]) => void;
  /** Nothing is to be done before a time, or nothing but on somebody's word (undefined). */
  onIdle: (wakeMs: number | undefined) => void;
  /** The run is another replica's by now. */
  onLost: () => void;
  /** Something failed by chance, and is done again. @param what one of a few texts @param about of the run, what it was */
  onFailed: (level: 'warn' | 'error', what: string, error: unknown, about?: object) => void;
}

/** What is done for an instance. */
interface Work {
  executionId: string | undefined;
  cancelled: boolean;
  /** It may have been begun before, by a process that is gone or by a try that failed by chance. */
  before: boolean;
  /** Aborted when an execution that was not accepted yet is not wanted any more. */
  unwanted: AbortController;
}

const NOT_STARTED: NodeError = { code: Code.CANCELLED, message: 'it was stopped before it was started' };
/** Events that are taken in one transaction. */
const MAX_EVENTS = 500;
/** setTimeout takes no more. */
const MAX_TIMER_MS = 2 ** 31 - 1;
const RETRY_MS = 500;

/** Advances one run: takes events in turn, stores what they change, and then does what follows from it. */
export class RunActor {
  readonly #options: RunActorOptions;
  readonly #events: { event: RunEvent; heard?: number }[] = [];
  readonly #working = new Map<string, Work>();
  /** Words of callers that were posted. */
  readonly #heard = new Set<number>();
  readonly #clocks = new Map<string, number>();
  readonly #stopping = new AbortController();
  /** Events are being taken: those that come now are taken too. */
  #busy = false;
  #flushing: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: RunActorOptions) {
    this.#options = options;
  }

  get run(): Run {
    return this.#options.run;
  }

  get tenantId(): string {
    return this.#options.tenantId;
  }

  /** Goes on where the run was; begins it if it was not begun. @param end what ends it before anything else is done */
  start(end?: RunEvent): void {
    const { instances } = this.run;
    if (instances.get(ROOT)?.state === 'PENDING') this.post({ type: 'begin' });
    if (end !== undefined) this.post(end);
    for (const instance of instances.values()) this.#note(instance);
    for (const instance of [...instances.values()]) this.#work(instance, true);
    this.post({ type: 'time' });
  }

  /** @param heard the word of a caller that the event is */
  post(event: RunEvent, heard?: number): void {
    if (this.#stopping.signal.aborted) return;
    if (heard !== undefined) {
      if (this.#heard.has(heard)) return;
      this.#heard.add(heard);
    }
    this.#events.push(heard === undefined ? { event } : { event, heard });
    if (this.#busy) return;
    this.#busy = true;
    this.#flushing = this.#flush();
  }

  /** Leaves everything as it is: another replica, or the next start, goes on. */
  async stop(): Promise<void> {
    this.#stopping.abort(new Error('the run is left to others'));
    clearTimeout(this.#timer);
    await this.#flushing;
  }

  async #flush(): Promise<void> {
    try {
      // What comes in the same turn shares a transaction.
      await Promise.resolve();
      while (this.#events.length > 0 && !this.#stopping.signal.aborted) {
        if (!(await this.#take(this.#nextEvents()))) return;
      }
    } catch (error) {
      // Memory is ahead of the database: whoever reads the run anew is right.
      this.#options.onFailed('error', 'a step of a workflow was not stored; trying again', error);
      this.#options.onLost();
      return;
    } finally {
      this.#busy = false;
    }
    this.#wait();
  }

  /** Those that share a transaction. */
  #nextEvents(): { event: RunEvent; heard?: number }[] {
    let chars = 0;
    let count = 0;
    for (const { event } of this.#events.slice(0, MAX_EVENTS)) {
      chars += charsOf(valueIn(event));
      if (count > 0 && chars > MAX_STEP_CHARS) break;
      count++;
    }
    return this.#events.splice(0, count);
  }

  /** @returns whether to go on */
  async #take(taken: readonly { event: RunEvent; heard?: number }[]): Promise<boolean> {
    const changed = new Map<string, Instance>();
    const log: (StepLog & { ms: number })[] = [];
    const ended: EndedInstance[] = [];
    for (const { event } of taken) {
      const ms = this.#options.nowMs();
      const step = advance(this.run, event, { ms, random: Math.random() });
      applyStep(this.run, step);
      for (const instance of step.changed) changed.set(instance.path, instance);
      for (const line of step.log) log.push({ ...line, ms });
      ended.push(...step.ended);
    }
    const heard = taken.flatMap((word) => word.heard ?? []);
    if (changed.size === 0 && heard.length === 0) return true;
    const step = { run: this.run, changed: [...changed.values()], log, ended, heard };
    failpoint('workflow-step-before-commit');
    const stored = await this.#options.store(step, this.#stopping.signal);
    if (this.#stopping.signal.aborted) return false;
    if (!stored) {
      this.#options.onLost();
      return false;
    }
    failpoint('workflow-step-committed');
    this.#options.onStored(ended);
    for (const instance of changed.values()) this.#note(instance);
    for (const instance of changed.values()) this.#work(instance);
    return true;
  }

  #note(instance: Instance): void {
    const ms = nextDueMs(instance);
    if (ms === undefined) this.#clocks.delete(instance.path);
    else this.#clocks.set(instance.path, ms);
  }

  #wait(): void {
    clearTimeout(this.#timer);
    if (this.#stopping.signal.aborted) return;
    let nextMs = Number.POSITIVE_INFINITY;
    for (const ms of this.#clocks.values()) nextMs = Math.min(nextMs, ms);
    if (this.#working.size === 0) this.#options.onIdle(nextMs === Number.POSITIVE_INFINITY ? undefined : nextMs);
    if (nextMs === Number.POSITIVE_INFINITY || this.#stopping.signal.aborted) return;
    const inMs = Math.min(Math.max(0, nextMs - this.#options.nowMs()) + 1, MAX_TIMER_MS);
    this.#timer = setTimeout(() => this.post({ type: 'time' }), inMs);
  }

  /** Does what follows from the phase of an instance, unless it is being done. @param before it may have been begun already */
  #work(instance: Instance, before = false): void {
    const { path, phase, tries, stopping } = instance;
    const key = `${path}#${tries} ${phase}`;
    const known = this.#working.get(key);
    if (known !== undefined) {
      if (phase === 'execution' && stopping !== undefined) this.#cancel(known);
      return;
    }
    if (phase !== 'execution' && phase !== 'compute' && phase !== 'output' && phase !== 'decide') return;
    const work: Work = { executionId: undefined, cancelled: false, before, unwanted: new AbortController() };
    this.#working.set(key, work);
    void this.#do(instance, work).finally(() => {
      this.#working.delete(key);
      // Whoever waits for it to be idle is told, also when nothing changed.
      if (!this.#busy) this.#wait();
    });
    if (stopping !== undefined) this.#cancel(work);
  }

  /** Until it is done: what has failed by chance is done again. */
  async #do({ path, tries, phase }: Instance, work: Work): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      const instance = this.run.instances.get(path);
      if (instance?.tries !== tries || instance.phase !== phase) return;
      try {
        if (phase === 'execution') await this.#execute(instance, work);
        else await this.#evaluate(instance);
        return;
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ExpressionError || error instanceof RefusedError) {
          const nodeError =
            error instanceof RefusedError ? error.nodeError : { code: Code.INPUT_INVALID, message: error.message };
          this.post({ type: 'not_computed', path, tries, error: nodeError });
          return;
        }
        this.#options.onFailed('warn', 'a node of a workflow is tried again', error, { path });
        work.before = true;
        await pause(RETRY_MS, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  async #evaluate(instance: Instance): Promise<void> {
    const { path, tries, phase } = instance;
    const { run, values, nowMs, checkInput } = this.#options;
    const node = nodeOf(run.graph, path);
    if (phase === 'decide' && node !== undefined) {
      this.post({ type: 'decided', path, ...(await decide(values, node, instance)) });
      return;
    }
    this.post({
      type: 'computed',
      path,
      tries,
      ...(await compute(run, values, instance, { nowMs: nowMs(), checkInput })),
    });
  }

  async #execute(instance: Instance, work: Work): Promise<void> {
    const { path, tries } = instance;
    const { run, tenantId, values, executions, labels } = this.#options;
    const node = nodeOf(run.graph, path);
    if (node === undefined) return;
    const key = executionKey(run.id, path, tries);
    const asked = {
      ...{ key, before: work.before },
      request: async () => await executionRequest(values, node, instance, key, labels),
    };
    const accepted = (id: string) => {
      work.executionId = id;
      if (this.run.instances.get(path)?.stopping !== undefined) this.#cancel(work);
    };
    const { executionId, state, outputJson, error } = await executions.run(tenantId, asked, {
      onAccepted: accepted,
      signal: this.#stopping.signal,
      unwanted: work.unwanted.signal,
    });
    if (state === 'SUCCEEDED') values.keep(executionId, outputJson);
    this.post({
      type: 'ended',
      path,
      tries,
      state,
      executionId,
      ...(state === 'SUCCEEDED' ? { output: { executionId } } : {}),
      ...(error === undefined ? {} : { error }),
    });
  }

  #cancel(work: Work): void {
    const { executionId } = work;
    // While it waits to be accepted, it is not asked for any more.
    if (executionId === undefined) work.unwanted.abort(new RefusedError(NOT_STARTED));
    if (executionId === undefined || work.cancelled) return;
    work.cancelled = true;
    const { executions, tenantId, onFailed } = this.#options;
    executions.cancel(tenantId, executionId).catch((error: unknown) => {
      work.cancelled = false;
      onFailed('warn', 'a node of a workflow could not be cancelled; trying again', error, { executionId });
      setTimeout(() => this.#cancel(work), RETRY_MS).unref();
    });
  }

  /** Whether the run has ended. */
  get isOver(): boolean {
    const root = this.run.instances.get(ROOT);
    return root !== undefined && isFinal(root.state) && root.phase === 'none';
  }
}

/** The value that an event brings to be stored. */
function valueIn(event: RunEvent): Stored | undefined {
  if (event.type === 'computed') return event.value;
  return event.type === 'signalled' ? event.payload : undefined;
}
