import { failpoint, type Logger } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type {
  AgentMessage,
  Assignment,
  CancelAttempt,
  LockDecided,
  LogStored,
  Welcome,
} from '@harrier/shared/gen/link';
import type { EnvironmentProvider, EnvironmentRequest, PreparedEnvironment } from '../environment/environment.ts';
import { type EnvironmentRegistry, providerKind } from '../environment/environment-registry.ts';
import {
  type AttemptEnd,
  type AttemptKeeper,
  type AttemptKey,
  type Executor,
  executorKind,
  type HeldByExecutor,
  type StartRefusal,
} from '../executor/executor.ts';
import { durationMs, maxDisconnectMs } from '../executor/start-message.ts';
import { requestOfAssignment } from './environment-request.ts';
import { HeldAttempt } from './held-attempt.ts';
import { deniedLimit, type LimitCaps } from './limit-caps.ts';
import {
  lockFoundMessage,
  logMessage,
  preparingMessage,
  progressMessage,
  rejectedMessage,
  resultMessage,
  startedMessage,
} from './link-messages.ts';
import { Preparations, type PreparationsEvents } from './preparations.ts';

/** What a finished attempt adds to the metrics. */
export interface FinishedAttempt {
  taskClass: string;
  environment: string;
  outcome: AttemptEnd['outcome'];
  runMs: number;
}

/** What an environment that is there adds to the metrics. */
export interface EnvironmentPrepared {
  environment: string;
  /** `hit`: it was there when the attempt came. */
  cache: 'hit' | 'miss';
  prepareMs: number;
}

export interface AttemptTableOptions {
  /** What attempts run in. */
  environments: EnvironmentRegistry;
  /** Attempts that run at once, at most. */
  slots: number;
  /** The most that an assignment may ask for. */
  caps: LimitCaps;
  send: (message: AgentMessage) => void;
  onFinished: (finished: FinishedAttempt) => void;
  onEnvironmentPrepared: (prepared: EnvironmentPrepared) => void;
  /** The table became empty of attempts that run, or of attempts. */
  onQuiet: () => void;
  /** An attempt left the table. */
  onForgotten: () => void;
  logger: Logger;
  nowMs?: () => number;
}

/**
 * The attempts that this agent holds, between the link and their keepers: the preparations, then the executors. It keeps
 * no output and no result: both stay with the keeper until the control plane has stored them. Whatever a keeper tells
 * while there is no link is let go here; a new link replays it from the offsets that the control plane has stored.
 */
export class AttemptTable implements PreparationsEvents {
  readonly #options: AttemptTableOptions;
  readonly #nowMs: () => number;
  readonly #executors = new Map<Executor['kind'], Executor>();
  readonly #preparations = new Preparations(this);
  readonly #held = new Map<string, HeldAttempt>();
  #active = 0;
  #linked = false;
  /** Keepers whose messages go on to the link: those that have answered the replay asked for by this link. */
  readonly #replayed = new Set<AttemptKeeper>();
  /** Counts the questions for what keepers have; see `HeldAttempt.askedBefore`. */
  #asked = 0;
  /** Locks that this link was told of beside the attempts that found them. */
  readonly #locksTold = new Set<string>();
  /** Undefined while assignments are taken; otherwise why not. */
  #closedReason: string | undefined;

  constructor(options: AttemptTableOptions) {
    this.#options = options;
    this.#nowMs = options.nowMs ?? (() => performance.now());
  }

  addExecutor(executor: Executor): void {
    this.#executors.set(executor.kind, executor);
  }

  /** Attempts that occupy a slot. */
  get active(): number {
    return this.#active;
  }

  /** Attempts that run or whose result is not stored yet. */
  get size(): number {
    return this.#held.size;
  }

  /** Of all attempts those that one keeper has. */
  sizeOf(keeper: AttemptKeeper): number {
    return [...this.#held.values()].filter((held) => held.keeper === keeper).length;
  }

  /** Everything that is still wanted as far as this agent knows, for `Hello.held`. */
  held(): { ref: AttemptKey; finished: boolean }[] {
    return [...this.#held.values()]
      .filter((held) => held.state !== 'dropping')
      .map(({ executionId, attempt, state }) => ({ ref: { executionId, attempt }, finished: state === 'finished' }));
  }

  /** @param reason why assignments are sent back from now on; undefined takes them again */
  setClosed(reason: string | undefined): void {
    this.#closedReason = reason;
  }

  // From the link.

  linkUp({ resume, drop }: Welcome): void {
    this.#linked = true;
    const wanted = new Set<string>();
    for (const stored of resume) {
      if (stored.ref !== undefined) wanted.add(keyOf(stored.ref));
      this.logStored(stored);
    }
    for (const ref of drop) wanted.delete(keyOf(ref));
    for (const [key, held] of [...this.#held]) if (!wanted.has(key)) this.#drop(held, 'not wanted after a new link');
    this.#asked++;
    for (const keeper of [this.#preparations, ...this.#executors.values()]) keeper.replay();
  }

  linkDown(): void {
    this.#linked = false;
    this.#replayed.clear();
    this.#locksTold.clear();
  }

  assign(assignment: Assignment): void {
    const { ref } = assignment;
    if (ref === undefined || this.#held.has(keyOf(ref))) return;
    const refusal = this.#closedReason ?? (this.#active >= this.#options.slots ? 'the agent is full' : undefined);
    if (refusal !== undefined) {
      this.#reject(assignment, tryElsewhere(refusal));
      return;
    }
    const denied = deniedLimit(assignment.limits, this.#options.caps);
    if (denied !== undefined) {
      this.#reject(assignment, { error: { code: Code.POLICY_DENIED, message: denied }, requeue: false });
      return;
    }
    const request = requestOfAssignment(assignment);
    const found = this.#options.environments.find(request);
    if ('reason' in found) {
      this.#reject(assignment, tryElsewhere(found.reason));
      return;
    }
    const arrivedAtMs = this.#nowMs();
    const prepared = found.provider.prepared(request);
    if (prepared !== undefined) {
      this.#startAtOnce(ref, assignment, prepared, arrivedAtMs);
      return;
    }
    const noRoom = found.provider.refusal?.();
    if (noRoom === undefined) this.#prepare(ref, assignment, found.provider, request, arrivedAtMs);
    else this.#reject(assignment, { error: { code: Code.ENVIRONMENT_FAILED, message: noRoom }, requeue: true });
  }

  #startAtOnce(ref: AttemptKey, assignment: Assignment, prepared: PreparedEnvironment, arrivedAtMs: number): void {
    this.#observePrepared(environmentKind(assignment), 'hit', arrivedAtMs);
    const started = this.#start(assignment, prepared, NO_PRELUDE);
    if ('error' in started) {
      prepared.release();
      this.#reject(assignment, started);
      return;
    }
    const from = { ...this.#fromOf(assignment, arrivedAtMs), state: 'assigned', prepared } as const;
    this.#add(new HeldAttempt(ref, started, from));
    this.#tellLock(ref, assignment, prepared);
  }

  /**
   * A module may come without a lock although another one, or ad-hoc code, has led to the same environment before: its
   * version gets that lock now, so that other agents install the same. Nobody waits for the answer.
   */
  #tellLock(ref: AttemptKey, { program }: Assignment, { start, lock = '', platform = '' }: PreparedEnvironment): void {
    if (lock === '' || program.case !== 'python') return;
    const told = `${program.value.filename} ${start?.key}`;
    if (this.#locksTold.has(told)) return;
    if (this.#locksTold.size >= MAX_LOCKS_TOLD) this.#locksTold.clear();
    this.#locksTold.add(told);
    this.#options.send(lockFoundMessage(ref, lock, platform));
  }

  #start(assignment: Assignment, prepared: PreparedEnvironment, prelude: Uint8Array): Executor | StartRefusal {
    const executor = this.#executors.get(executorKind(assignment));
    if (executor === undefined) return tryElsewhere('this agent runs no containers');
    return executor.start(assignment, prepared, prelude) ?? executor;
  }

  #prepare(
    ref: AttemptKey,
    assignment: Assignment,
    provider: EnvironmentProvider,
    request: EnvironmentRequest,
    arrivedAtMs: number,
  ): void {
    const from = { ...this.#fromOf(assignment, arrivedAtMs), state: 'preparing' } as const;
    const held = new HeldAttempt(ref, this.#preparations, from);
    this.#add(held);
    if (this.#forwards(held)) this.#options.send(preparingMessage(held));
    this.#preparations.start(ref, assignment, provider, request);
  }

  cancel({ ref, grace }: CancelAttempt): void {
    const held = ref && this.#held.get(keyOf(ref));
    if (!held?.active) return;
    held.cancelGraceMs = Math.ceil(durationMs(grace));
    this.#log(held, 'cancel');
    held.keeper.cancel(held, 'cancel', held.cancelGraceMs);
  }

  /** The answer to a lock that was found. */
  lockDecided({ ref, lock }: LockDecided): void {
    if (ref !== undefined) this.#preparations.lockDecided(ref, lock);
  }

  logStored({ ref, stdoutOffset, stderrOffset }: LogStored): void {
    const held = ref && this.#held.get(keyOf(ref));
    if (held === undefined) return;
    held.storedStdoutBytes = Number(stdoutOffset);
    held.storedStderrBytes = Number(stderrOffset);
    held.keeper.acknowledgeOutput(held, held.storedStdoutBytes, held.storedStderrBytes);
  }

  resultStored(ref: AttemptKey | undefined): void {
    const held = ref && this.#held.get(keyOf(ref));
    failpoint('result-acknowledged');
    if (held?.state === 'finished') this.#forget(held);
    else if (held !== undefined) this.#drop(held, 'the control plane has a result');
  }

  drop(ref: AttemptKey | undefined, reason: string): void {
    const held = ref && this.#held.get(keyOf(ref));
    if (held !== undefined) this.#drop(held, reason);
  }

  /** Stops everything that runs, because the agent stops. */
  cancelAll(graceMs: number): void {
    for (const held of this.#held.values()) {
      if (!held.active) continue;
      this.#stop(held, 'the agent was stopped', graceMs);
    }
  }

  /**
   * Stops what may not go on for so long beyond the lease.
   * @param beyondMs how long the lease is over; what may go on for that long or less is stopped
   */
  stopBeyondLease(beyondMs: number, graceMs: number): void {
    for (const held of this.#held.values()) {
      if (!held.active || held.stopReason !== undefined || held.maxDisconnectMs > beyondMs) continue;
      this.#stop(held, 'its agent could not reach the control plane for longer than it may go on', graceMs);
    }
  }

  #stop(held: HeldAttempt, reason: string, graceMs: number): void {
    // What a caller has cancelled before stays cancelled by the caller.
    if (held.cancelGraceMs === undefined) held.stopReason = reason;
    held.cancelGraceMs = graceMs;
    held.keeper.cancel(held, 'shutdown', graceMs);
  }

  /** Gives back what is still being prepared, because the agent goes: nothing of it has run. */
  close(): void {
    for (const key of this.#preparations.abandon(new Error('the agent stops'))) {
      const held = this.#held.get(keyOf(key));
      if (held === undefined) continue;
      this.#remove(held);
      if (held.state === 'preparing')
        this.#reject({ ref: held, tenant: held.tenant }, tryElsewhere('the agent has stopped'));
    }
  }

  // From the keepers.

  onLockFound(key: AttemptKey, lock: string, platform: string): void {
    const held = this.#held.get(keyOf(key));
    if (held !== undefined && this.#forwards(held)) this.#options.send(lockFoundMessage(held, lock, platform));
  }

  onPrepared(
    assignment: Assignment,
    prepared: PreparedEnvironment,
    prelude: Uint8Array,
  ): StartRefusal['error'] | undefined {
    const { ref } = assignment;
    const held = ref && this.#held.get(keyOf(ref));
    if (held?.state !== 'preparing') {
      prepared.release();
      return undefined;
    }
    this.#observePrepared(held.environment, 'miss', held.arrivedAtMs);
    const started = this.#start(assignment, prepared, prelude);
    if (!('error' in started)) {
      held.handOver(started, prepared, this.#asked);
      // What the control plane has of the prelude.
      started.acknowledgeOutput(held, held.storedStdoutBytes, held.storedStderrBytes);
      return undefined;
    }
    prepared.release();
    if (!started.requeue) return started.error;
    this.#remove(held);
    this.#reject(assignment, started);
    return undefined;
  }

  onStarted(key: AttemptKey): void {
    const held = this.#held.get(keyOf(key));
    if (held?.state !== 'assigned') return;
    held.start(this.#nowMs());
    if (this.#forwards(held)) this.#options.send(startedMessage(held));
  }

  onOutput(key: AttemptKey, stream: 'stdout' | 'stderr', offset: number, data: Uint8Array): void {
    const held = this.#held.get(keyOf(key));
    if (held?.state === 'dropping') this.#discardOutput(held);
    else if (held !== undefined && this.#forwards(held)) this.#options.send(logMessage(held, stream, offset, data));
  }

  onProgress(key: AttemptKey, percent: number, step: string): void {
    const held = this.#held.get(keyOf(key));
    if (held !== undefined && this.#forwards(held)) this.#options.send(progressMessage(held, percent, step));
  }

  onFinished(key: AttemptKey, told: AttemptEnd): void {
    const held = this.#held.get(keyOf(key));
    if (held === undefined) return;
    const { stopReason } = held;
    const wasStopped = told.outcome === 'cancelled' || told.error?.code === Code.AGENT_LOST;
    const end = stopReason !== undefined && wasStopped ? { ...told, ...stopped(stopReason) } : told;
    if (held.state === 'dropping') {
      this.#forget(held);
      return;
    }
    if (held.state !== 'finished') this.#finish(held, end);
    failpoint('result-before-send');
    if (this.#forwards(held)) this.#options.send(resultMessage(held, end, held.prepareMs));
  }

  onRecovered(keeper: AttemptKeeper, listed: readonly HeldByExecutor[]): void {
    if (this.#linked) this.#replayed.add(keeper);
    const present = new Set<string>();
    const running = new Set<string>();
    for (const { executionId, attempt, finished } of listed) {
      const key = keyOf({ executionId, attempt });
      present.add(key);
      if (!finished) running.add(key);
      if (!this.#held.has(key)) {
        const from = { state: finished ? 'finished' : 'running', askedBefore: this.#asked } as const;
        // A former agent has prepared what it runs in.
        const prepared = finished ? undefined : this.#options.environments.holdAll();
        this.#add(new HeldAttempt({ executionId, attempt }, keeper, { ...from, ...(prepared && { prepared }) }));
      }
    }
    for (const [key, held] of [...this.#held]) {
      if (held.keeper !== keeper) continue;
      if (present.has(key)) this.#recover(held, running.has(key));
      else if (held.askedBefore !== this.#asked) this.#recoverLost(held);
    }
  }

  onLost(keeper: AttemptKeeper): void {
    this.#asked++;
    this.#replayed.delete(keeper);
  }

  #recover(held: HeldAttempt, running: boolean): void {
    if (running && held.state === 'assigned') held.start(this.#nowMs());
    if (held.active && held.cancelGraceMs !== undefined) held.keeper.cancel(held, 'cancel', held.cancelGraceMs);
    if (!this.#forwards(held)) return;
    if (held.state === 'preparing') this.#options.send(preparingMessage(held));
    if (held.state === 'running') this.#options.send(startedMessage(held));
  }

  /** The executor lost the attempt with its own process: before its start it can run elsewhere, afterwards it has failed. */
  #recoverLost(held: HeldAttempt): void {
    if (held.state === 'dropping') {
      this.#remove(held);
    } else if (held.state === 'assigned') {
      if (!this.#forwards(held)) return;
      this.#remove(held);
      const message = 'the launcher was restarted before the attempt started';
      this.#reject({ ref: held, tenant: held.tenant }, tryElsewhere(message));
    } else {
      const end = lostEnd(held);
      if (held.state === 'running') this.#finish(held, end);
      if (this.#forwards(held)) this.#options.send(resultMessage(held, end, held.prepareMs));
    }
  }

  #forwards(held: HeldAttempt): boolean {
    return this.#linked && held.state !== 'dropping' && this.#replayed.has(held.keeper);
  }

  #add(held: HeldAttempt): void {
    this.#held.set(keyOf(held), held);
    if (held.active) this.#active++;
  }

  #finish(held: HeldAttempt, end: AttemptEnd): void {
    held.finish(this.#nowMs());
    this.#active--;
    const { taskClass, environment } = held;
    this.#options.onFinished({ taskClass, environment, outcome: end.outcome, runMs: end.runMs });
    if (this.#active === 0) this.#options.onQuiet();
  }

  #drop(held: HeldAttempt, reason: string): void {
    if (held.state === 'dropping') return;
    this.#log(held, 'drop', reason);
    if (held.state === 'finished') {
      this.#forget(held);
      return;
    }
    held.drop();
    held.cancelGraceMs = 0;
    held.keeper.cancel(held, 'cancel', 0);
    this.#discardOutput(held);
  }

  /** Output that nobody stores would be waited for: the end comes after it. */
  #discardOutput(held: HeldAttempt): void {
    held.keeper.acknowledgeOutput(held, Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
  }

  #forget(held: HeldAttempt): void {
    held.keeper.forget(held);
    this.#remove(held);
  }

  #remove(held: HeldAttempt): void {
    this.#held.delete(keyOf(held));
    held.release();
    if (held.active) this.#active--;
    if (this.#active === 0) this.#options.onQuiet();
    this.#options.onForgotten();
  }

  #reject({ ref, tenant }: { ref?: AttemptKey | undefined; tenant: string }, { error, requeue }: StartRefusal): void {
    if (ref === undefined) return;
    const { executionId, attempt } = ref;
    this.#options.logger.warn({ executionId, attempt, tenant, requeue, reason: error.message }, 'attempt rejected');
    this.#options.send(rejectedMessage(ref, error, requeue));
  }

  #fromOf(assignment: Assignment, arrivedAtMs: number) {
    const { tenant, taskClass } = assignment;
    const maxDisconnect = { maxDisconnectMs: maxDisconnectMs(assignment) };
    const environment = environmentKind(assignment);
    return { tenant, taskClass, environment, arrivedAtMs, ...maxDisconnect, askedBefore: this.#asked };
  }

  #observePrepared(environment: string, cache: 'hit' | 'miss', sinceMs = this.#nowMs()): void {
    // What needs no preparation.
    if (environment === 'inline' || environment === 'nodejs') return;
    this.#options.onEnvironmentPrepared({ environment, cache, prepareMs: this.#nowMs() - sinceMs });
  }

  #log({ executionId, attempt, tenant }: HeldAttempt, event: 'cancel' | 'drop', reason?: string): void {
    this.#options.logger.info({ executionId, attempt, tenant, reason }, event === 'cancel' ? 'cancelling' : 'dropped');
  }
}

/** More only costs that a lock is told twice. */
const MAX_LOCKS_TOLD = 10_000;
const NO_PRELUDE = new Uint8Array(0);

function environmentKind(assignment: Assignment): string {
  return providerKind(requestOfAssignment(assignment));
}

function tryElsewhere(message: string): StartRefusal {
  return { error: { code: Code.SUBMIT_FAILED, message }, requeue: true };
}

/** Nobody cancelled the execution: another agent may try it. */
function stopped(message: string): Pick<AttemptEnd, 'outcome' | 'error'> {
  return { outcome: 'failed', error: { code: Code.AGENT_LOST, message } };
}

function keyOf({ executionId, attempt }: AttemptKey): string {
  return `${executionId}/${attempt}`;
}

/** What is told of an attempt whose result nobody has. */
function lostEnd(held: HeldAttempt): AttemptEnd {
  const message = 'the attempt was lost with the launcher that ran it';
  return {
    outcome: 'failed',
    error: { code: Code.AGENT_LOST, message },
    exitCode: undefined,
    output: new Uint8Array(0),
    runMs: 0,
    cpuMs: 0,
    maxRssBytes: 0,
    stdoutBytes: held.storedStdoutBytes,
    stderrBytes: held.storedStderrBytes,
    stdoutTruncated: false,
    stderrTruncated: false,
  };
}
