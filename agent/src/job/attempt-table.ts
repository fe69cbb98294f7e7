import { failpoint, MAX_HELD_ATTEMPTS, NO_TRACING, type Tracing } from '@harrier/shared';
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
import type { EnvironmentRegistry } from '../environment/environment-registry.ts';
import { environmentKind, requestOfAssignment } from '../environment/environment-request.ts';
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
import type { GpuKeeper } from '../gpu/gpu-keeper.ts';
import { knownEnd, lostEnd, OUTPUT_LOST, outputLostEnd, tryElsewhere } from './attempt-ends.ts';
import { AttemptReports, type AttemptReportsOptions, type Rejected } from './attempt-reports.ts';
import { AttemptTrace } from './attempt-trace.ts';
import { HeldAttempt } from './held-attempt.ts';
import { deniedForJob, deniedHere, type LimitCaps } from './limit-caps.ts';
import {
  lockFoundMessage,
  logMessage,
  preparingMessage,
  progressMessage,
  rejectedMessage,
  resultMessage,
  startedMessage,
} from './link-messages.ts';
import { LocksTold } from './locks-told.ts';
import { Preparations, type PreparationsEvents } from './preparations.ts';

export interface AttemptTableOptions extends AttemptReportsOptions {
  /** What attempts run in. */
  environments: EnvironmentRegistry;
  /** What jobs of Slurm run in; absent: this agent submits none. */
  slurmEnvironments?: () => EnvironmentRegistry | undefined;
  /** Attempts that run at once on this host, at most. */
  slots: number;
  /** The most that an assignment may ask for. */
  caps: LimitCaps;
  /** Who has which GPU. */
  gpus: Pick<GpuKeeper, 'reserve' | 'adopt' | 'giveBack' | 'release'>;
  send: (message: AgentMessage) => void;
  /** The table became empty of attempts that run, or of attempts. */
  onQuiet: () => void;
  /** An attempt left the table. */
  onForgotten: () => void;
  /** Absent: nothing is traced. */
  tracing?: Tracing;
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
  readonly #tracing: Tracing;
  readonly #executors = new Map<Executor['kind'], Executor>();
  readonly #preparations = new Preparations(this);
  readonly #held = new Map<string, HeldAttempt>();
  /** On this host, and elsewhere. */
  #active = 0;
  #activeJobs = 0;
  #linked = false;
  /** Keepers whose messages go on to the link: those that have answered the replay asked for by this link. */
  readonly #replayed = new Set<AttemptKeeper>();
  /** Counts the questions for what keepers have; see `HeldAttempt.askedBefore`. */
  #asked = 0;
  readonly #reports: AttemptReports;
  readonly #locksTold: LocksTold;
  /** Undefined while assignments are taken; otherwise why not. */
  #closedReason: string | undefined;

  constructor(options: AttemptTableOptions) {
    this.#options = options;
    this.#reports = new AttemptReports(options);
    this.#locksTold = new LocksTold(options.send);
    this.#nowMs = options.nowMs ?? (() => performance.now());
    this.#tracing = options.tracing ?? NO_TRACING;
  }

  addExecutor(executor: Executor): void {
    this.#executors.set(executor.kind, executor);
  }

  /** Attempts that occupy a slot. */
  get active(): number {
    return this.#active;
  }

  /** Attempts that are jobs of Slurm, which take no slot, and have not ended. */
  get activeJobs(): number {
    return this.#activeJobs;
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
  held(): { ref: AttemptKey; finished: boolean; gpuUuids?: string[] }[] {
    return [...this.#held.values()]
      .filter((held) => held.state !== 'dropping')
      .map(({ executionId, attempt, state, gpuUuids }) => {
        const finished = state === 'finished';
        const has = finished || gpuUuids.length === 0 ? {} : { gpuUuids: [...gpuUuids] };
        return { ref: { executionId, attempt }, finished, ...has };
      });
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
      if (stored.ref !== undefined) {
        wanted.add(keyOf(stored.ref));
        const held = this.#held.get(keyOf(stored.ref));
        held?.resumeFrom(Number(stored.stdoutOffset), Number(stored.stderrOffset));
      }
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
    this.#locksTold.linkDown();
  }

  assign(assignment: Assignment): void {
    const { ref } = assignment;
    if (ref === undefined || this.#held.has(keyOf(ref))) return;
    const isJob = assignment.slurm !== undefined;
    const refusal = this.#closedReason ?? this.#whyFull(isJob);
    if (refusal !== undefined) {
      this.#reject(assignment, tryElsewhere(refusal));
      return;
    }
    const denied = (isJob ? deniedForJob : deniedHere)(assignment, this.#options.caps);
    if (denied !== undefined) {
      this.#reject(assignment, { error: { code: Code.POLICY_DENIED, message: denied }, requeue: false });
      return;
    }
    const request = requestOfAssignment(assignment);
    const environments = isJob ? this.#options.slurmEnvironments?.() : this.#options.environments;
    const found = environments?.find(request) ?? { reason: 'this agent submits nothing to Slurm' };
    if ('reason' in found) {
      this.#reject(assignment, tryElsewhere(found.reason));
      return;
    }
    const taken = this.#options.gpus.reserve(ref, assignment.gpuUuids);
    if (taken !== undefined) {
      this.#reject(assignment, tryElsewhere(taken));
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
    else this.#refuse(assignment, { error: { code: Code.ENVIRONMENT_FAILED, message: noRoom }, requeue: true });
  }

  /** @param isJob jobs take no slot */
  #whyFull(isJob: boolean): string | undefined {
    if (!isJob && this.#active >= this.#options.slots) return 'the agent is full';
    if (this.#held.size < MAX_HELD_ATTEMPTS) return undefined;
    return `the agent holds ${this.#held.size - this.#active - this.#activeJobs} results that are not stored yet`;
  }

  #startAtOnce(ref: AttemptKey, assignment: Assignment, prepared: PreparedEnvironment, arrivedAtMs: number): void {
    this.#reports.prepared(environmentKind(assignment), 'hit', this.#nowMs() - arrivedAtMs);
    const from = { ...this.#fromOf(assignment, arrivedAtMs), state: 'assigned', prepared } as const;
    const started = this.#start(assignment, prepared, NO_PRELUDE, from.trace);
    if ('error' in started) {
      prepared.release();
      from.trace?.end('rejected', started.error.message);
      this.#refuse(assignment, started);
      return;
    }
    this.#add(new HeldAttempt(ref, started, from));
    this.#locksTold.tell(ref, assignment, prepared);
  }

  #start(
    assignment: Assignment,
    prepared: PreparedEnvironment,
    prelude: Uint8Array,
    trace: AttemptTrace | undefined,
  ): Executor | StartRefusal {
    const executor = this.#executors.get(executorKind(assignment));
    if (executor === undefined) return tryElsewhere('this agent runs no containers');
    const traceParent = trace?.run() ?? assignment.traceParent;
    // What a caller has set stays.
    if (traceParent !== '') assignment.env = { TRACEPARENT: traceParent, ...assignment.env };
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
    held.trace?.prepare();
    this.#add(held);
    if (this.#forwards(held)) this.#options.send(preparingMessage(held));
    this.#executors.get(executorKind(assignment))?.preparing?.(assignment);
    this.#preparations.start(ref, assignment, provider, request);
  }

  cancel({ ref, grace }: CancelAttempt): void {
    const held = ref && this.#held.get(keyOf(ref));
    if (!held?.active) return;
    held.cancelGraceMs = Math.ceil(durationMs(grace));
    this.#reports.cancelling(held);
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

  /**
   * Stops everything that runs on this host, because the agent stops.
   * @param withJobs also what runs elsewhere and could go on
   */
  cancelAll(graceMs: number, withJobs = false): void {
    for (const held of this.#held.values()) {
      if (!held.active || (held.isJob && !withJobs)) continue;
      this.#stop(held, 'the agent was stopped', graceMs);
    }
  }

  /**
   * Stops what may not go on for so long beyond the lease.
   * @param beyondMs how long the lease is over; what may go on for that long or less is stopped
   */
  stopBeyondLease(beyondMs: number, graceMs: number): void {
    for (const held of this.#held.values()) {
      // Jobs of Slurm look for themselves.
      if (!held.active || held.isJob || held.stopReason !== undefined || held.maxDisconnectMs > beyondMs) continue;
      this.#stop(held, 'its agent could not reach the control plane for longer than it may go on', graceMs);
    }
  }

  #stop(held: HeldAttempt, reason: string, graceMs: number): void {
    // What a caller has cancelled before stays cancelled by the caller.
    if (held.cancelGraceMs === undefined) held.stopReason = reason;
    held.cancelGraceMs = graceMs;
    held.keeper.cancel(held, 'shutdown', graceMs);
  }

  /** Gives back what is still being prepared, because the agent goes: nothing of it has run. Safe to call twice. */
  giveBackPreparations(): void {
    for (const key of this.#preparations.abandon(new Error('the agent stops'))) {
      const held = this.#held.get(keyOf(key));
      if (held === undefined) continue;
      this.#remove(held);
      if (held.state === 'preparing') this.#rejectHeld(held, tryElsewhere('the agent has stopped'));
    }
  }

  // From the keepers.

  onLockFound(key: AttemptKey, lock: string, platform: string): void {
    const held = this.#held.get(keyOf(key));
    if (held !== undefined && this.#forwards(held)) this.#options.send(lockFoundMessage(held, lock, platform));
  }

  onGpusTaken(key: AttemptKey, gone: Promise<void>): void {
    const held = this.#held.get(keyOf(key));
    if (held !== undefined) held.gpusGone = gone;
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
    this.#reports.prepared(held.environment, 'miss', this.#nowMs() - (held.arrivedAtMs ?? this.#nowMs()));
    const started = this.#start(assignment, prepared, prelude, held.trace);
    if (!('error' in started)) {
      held.handOver(started, prepared, this.#asked);
      // What the control plane has of the prelude.
      started.acknowledgeOutput(held, held.storedStdoutBytes, held.storedStderrBytes);
      return undefined;
    }
    prepared.release();
    if (!started.requeue) return started.error;
    held.trace?.end('rejected', started.error.message);
    this.#forgetPreparing(held);
    this.#remove(held);
    this.#reject(assignment, started);
    return undefined;
  }

  /** Of what has not begun to run, and is not to begin here: another agent may. @returns whether that was told */
  onRefused(key: AttemptKey, error: StartRefusal['error']): boolean {
    const held = this.#held.get(keyOf(key));
    if (held === undefined || !this.#forwards(held)) return false;
    held.trace?.end('rejected', error.message);
    this.#forgetPreparing(held);
    this.#remove(held);
    this.#rejectHeld(held, { error, requeue: true });
    return true;
  }

  onStarted(key: AttemptKey): void {
    const held = this.#held.get(keyOf(key));
    if (held?.state !== 'assigned') return;
    held.start(this.#nowMs());
    if (this.#forwards(held)) this.#options.send(startedMessage(held));
  }

  onOutput(key: AttemptKey, stream: 'stdout' | 'stderr', offset: number, data: Uint8Array): void {
    const held = this.#held.get(keyOf(key));
    if (held === undefined) return;
    if (held.state === 'dropping' || held.isOutputLost) {
      this.#discardOutput(held);
    } else if (this.#forwards(held)) {
      if (held.reach(stream, offset, data.length)) this.#options.send(logMessage(held, stream, offset, data));
      else this.#loseOutput(held);
    }
  }

  onProgress(key: AttemptKey, percent: number, step: string): void {
    const held = this.#held.get(keyOf(key));
    if (held !== undefined && this.#forwards(held)) this.#options.send(progressMessage(held, percent, step));
  }

  onFinished(key: AttemptKey, told: AttemptEnd): void {
    const held = this.#held.get(keyOf(key));
    if (held === undefined) return;
    if (this.#forwards(held) && !this.#hasReached(held, told)) held.isOutputLost = true;
    const end = held.isOutputLost ? outputLostEnd(held) : knownEnd(held, told);
    if (held.state === 'dropping') {
      this.#forget(held);
      return;
    }
    if (this.#isGivenBack(held, told)) {
      held.keeper.forget(held);
      return;
    }
    if (held.state !== 'finished') this.#finish(held, end);
    failpoint('result-before-send');
    if (this.#forwards(held)) this.#options.send(resultMessage(held, end, held.prepareMs));
  }

  /** Whether it was stopped, though no caller asked for that, before its code had begun, and the control plane was told so: another agent may start it. */
  #isGivenBack(held: HeldAttempt, { neverStarted, error }: AttemptEnd): boolean {
    const { state, stopReason } = held;
    if (neverStarted !== true || error?.code !== Code.AGENT_LOST || state !== 'assigned' || stopReason === undefined)
      return false;
    return this.onRefused(held, tryElsewhere(stopReason).error);
  }

  onRecovered(keeper: AttemptKeeper, listed: readonly HeldByExecutor[], isAnother = false): void {
    if (this.#linked) this.#replayed.add(keeper);
    const present = new Set<string>();
    const running = new Set<string>();
    for (const { executionId, attempt, finished, started = true, gpuUuids = [], ...about } of listed) {
      const key = keyOf({ executionId, attempt });
      present.add(key);
      const isRunning = !finished && started;
      if (isRunning) running.add(key);
      if (!this.#held.has(key)) {
        const state = finished ? 'finished' : isRunning ? 'running' : 'assigned';
        const from = { state, isFound: true, askedBefore: this.#asked } as const;
        // A former agent has prepared what it runs in.
        const isJob = (keeper as Partial<Executor>).kind === 'slurm';
        const environments = isJob ? this.#options.slurmEnvironments?.() : this.#options.environments;
        const prepared = finished ? undefined : environments?.holdAll();
        const held = { ...about, ...from, isJob, gpuUuids, ...(prepared && { prepared }) };
        this.#add(new HeldAttempt({ executionId, attempt }, keeper, held));
        if (gpuUuids.length > 0) this.#options.gpus.adopt({ executionId, attempt }, gpuUuids);
        // It has ended while nobody looked at what it has left on its cards.
        if (gpuUuids.length > 0 && finished) this.#options.gpus.release({ executionId, attempt });
      }
    }
    for (const [key, held] of [...this.#held]) {
      if (held.keeper !== keeper) continue;
      if (present.has(key)) this.#recover(held, running.has(key));
      else if (held.askedBefore !== this.#asked) this.#recoverLost(held, isAnother);
    }
  }

  onLost(keeper: AttemptKeeper): void {
    this.#asked++;
    this.#replayed.delete(keeper);
  }

  #recover(held: HeldAttempt, running: boolean): void {
    if (running && held.state === 'assigned') held.start(this.#nowMs());
    if (held.active && held.cancelGraceMs !== undefined) {
      held.keeper.cancel(held, held.stopReason === undefined ? 'cancel' : 'shutdown', held.cancelGraceMs);
    }
    if (!this.#forwards(held)) return;
    if (held.state === 'preparing') this.#options.send(preparingMessage(held));
    if (held.state === 'running') this.#options.send(startedMessage(held));
  }

  /**
   * The executor does not have the attempt: it can run elsewhere when it has never come there, and has failed when it went with
   * the executor's process. One that had just started may have gone before that was told.
   */
  #recoverLost(held: HeldAttempt, mayHaveRun: boolean): void {
    if (held.state === 'dropping') {
      this.#remove(held);
    } else if (held.state === 'assigned' && !mayHaveRun) {
      if (!this.#forwards(held)) return;
      this.#remove(held);
      this.#rejectHeld(held, tryElsewhere('the assignment did not reach the launcher'));
    } else {
      const end = lostEnd(held);
      if (held.active) this.#finish(held, end);
      if (this.#forwards(held)) this.#options.send(resultMessage(held, end, held.prepareMs));
    }
  }

  #forwards(held: HeldAttempt): boolean {
    return this.#linked && held.state !== 'dropping' && this.#replayed.has(held.keeper);
  }

  #add(held: HeldAttempt): void {
    this.#held.set(keyOf(held), held);
    if (held.active) this.#count(held, 1);
  }

  #count(held: HeldAttempt, by: 1 | -1): void {
    if (held.isJob) this.#activeJobs += by;
    else this.#active += by;
  }

  #finish(held: HeldAttempt, end: AttemptEnd): void {
    this.#freeGpus(held);
    held.finish(this.#nowMs());
    this.#count(held, -1);
    held.trace?.end(end.outcome, end.error?.message);
    this.#reports.finished(held, end);
    if (this.#active === 0) this.#options.onQuiet();
  }

  #drop(held: HeldAttempt, reason: string): void {
    if (held.state === 'dropping') return;
    this.#reports.dropped(held, reason);
    if (held.state === 'finished') {
      this.#forget(held);
      return;
    }
    held.drop();
    held.cancelGraceMs = 0;
    held.keeper.cancel(held, 'cancel', 0);
    this.#discardOutput(held);
  }

  /**
   * The control plane has less than it had acknowledged, and what it had acknowledged is gone here: its database was restored from a
   * backup. A log has no gaps, so the attempt ends, and a retry writes one from the start.
   */
  #loseOutput(held: HeldAttempt): void {
    held.isOutputLost = true;
    if (held.active && held.stopReason === undefined) this.#stop(held, OUTPUT_LOST, 0);
    this.#discardOutput(held);
  }

  /** Whether all that an attempt has written was sent, which is so before its end. */
  #hasReached({ reachedBytes }: HeldAttempt, { stdoutBytes, stderrBytes }: AttemptEnd): boolean {
    return stdoutBytes <= reachedBytes.stdout && stderrBytes <= reachedBytes.stderr;
  }

  /** Output that nobody stores would be waited for: the end comes after it. */
  #discardOutput(held: HeldAttempt): void {
    held.keeper.acknowledgeOutput(held, Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
  }

  #forget(held: HeldAttempt): void {
    held.keeper.forget(held);
    this.#forgetPreparing(held);
    this.#remove(held);
  }

  /** The executor of an attempt may have kept that its environment was being made; see `Executor.preparing`. */
  #forgetPreparing(held: HeldAttempt): void {
    if (held.isJob && held.keeper === this.#preparations) this.#executors.get('slurm')?.forget(held);
  }

  #remove(held: HeldAttempt): void {
    this.#held.delete(keyOf(held));
    this.#freeGpus(held);
    held.release();
    held.trace?.end('dropped', 'it was not wanted any more');
    if (held.active) this.#count(held, -1);
    if (this.#active === 0) this.#options.onQuiet();
    this.#options.onForgotten();
  }

  /** Safe to call twice. */
  #freeGpus(held: HeldAttempt): void {
    if (held.gpuUuids.length === 0) return;
    const isUntouched = held.state === 'preparing' && held.gpusGone === undefined;
    if (isUntouched) this.#options.gpus.giveBack(held);
    else this.#options.gpus.release(held, held.gpusGone);
  }

  /** Sends back an assignment that has its GPUs already. */
  #refuse(assignment: Assignment, refusal: StartRefusal): void {
    if (assignment.ref !== undefined && assignment.gpuUuids.length > 0) this.#options.gpus.giveBack(assignment.ref);
    this.#reject(assignment, refusal);
  }

  #reject(rejected: Rejected, refusal: StartRefusal): void {
    const { ref } = rejected;
    if (ref === undefined) return;
    this.#reports.rejected(ref, rejected, refusal);
    this.#options.send(rejectedMessage(ref, refusal.error, refusal.requeue));
  }

  #rejectHeld(held: HeldAttempt, refusal: StartRefusal): void {
    this.#reject({ ref: held, tenant: held.tenant, taskClass: held.taskClass }, refusal);
  }

  #fromOf(assignment: Assignment, arrivedAtMs: number) {
    const { tenant, taskClass, gpuUuids } = assignment;
    const maxDisconnect = { maxDisconnectMs: maxDisconnectMs(assignment) };
    const environment = environmentKind(assignment);
    const trace = this.#tracing.enabled ? new AttemptTrace(this.#tracing, assignment, environment) : undefined;
    const from = { ...maxDisconnect, trace, traceParent: assignment.traceParent, askedBefore: this.#asked };
    const isJob = assignment.slurm !== undefined;
    return { tenant, taskClass, environment, gpuUuids, arrivedAtMs, isJob, ...from };
  }
}

const NO_PRELUDE = new Uint8Array(0);

function keyOf({ executionId, attempt }: AttemptKey): string {
  return `${executionId}/${attempt}`;
}
