import type { Logger } from '@harrier/shared';
import { ExecutionError_Code as Code, type ExecutionError } from '@harrier/shared/gen/error';
import type { AgentMessage, Assignment, CancelAttempt, LogStored, Welcome } from '@harrier/shared/gen/link';
import type { AttemptEnd, AttemptKey, Executor, ExecutorEvents, HeldByExecutor } from '../executor/executor.ts';
import { durationMs } from '../executor/start-message.ts';
import { HeldAttempt } from './held-attempt.ts';
import { deniedLimit, type LimitCaps } from './limit-caps.ts';
import { logMessage, progressMessage, rejectedMessage, resultMessage, startedMessage } from './link-messages.ts';

/** What a finished attempt adds to the metrics. */
export interface FinishedAttempt {
  taskClass: string;
  environment: string;
  outcome: AttemptEnd['outcome'];
  runMs: number;
}

export interface AttemptTableOptions {
  /** Attempts that run at once, at most. */
  slots: number;
  /** The most that an assignment may ask for. */
  caps: LimitCaps;
  send: (message: AgentMessage) => void;
  onFinished: (finished: FinishedAttempt) => void;
  /** The table became empty of attempts that run, or of attempts. */
  onQuiet: () => void;
  logger: Logger;
  nowMs?: () => number;
}

/**
 * The attempts that this agent holds, between the link and the executors. It keeps no output and no result: both stay
 * with the executor until the control plane has stored them. Whatever an executor tells while there is no link is let go
 * here; a new link replays it from the offsets that the control plane has stored.
 */
export class AttemptTable implements ExecutorEvents {
  readonly #options: AttemptTableOptions;
  readonly #nowMs: () => number;
  readonly #executors = new Map<string, Executor>();
  readonly #held = new Map<string, HeldAttempt>();
  #active = 0;
  #linked = false;
  /** Executors whose messages go on to the link: those that have answered the replay asked for by this link. */
  readonly #replayed = new Set<Executor>();
  /** Counts the questions for what executors have; see `HeldAttempt.askedBefore`. */
  #asked = 0;
  /** Undefined while assignments are taken; otherwise why not. */
  #closedReason: string | undefined;

  constructor(options: AttemptTableOptions) {
    this.#options = options;
    this.#nowMs = options.nowMs ?? (() => performance.now());
  }

  addExecutor(executor: Executor): void {
    this.#executors.set(executor.kind, executor);
  }

  get environments(): string[] {
    return [...this.#executors.keys()];
  }

  /** Attempts that occupy a slot. */
  get active(): number {
    return this.#active;
  }

  /** Attempts that run or whose result is not stored yet. */
  get size(): number {
    return this.#held.size;
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
    for (const executor of this.#executors.values()) executor.replay();
  }

  linkDown(): void {
    this.#linked = false;
    this.#replayed.clear();
  }

  assign(assignment: Assignment): void {
    const { ref, tenant, taskClass } = assignment;
    if (ref === undefined || this.#held.has(keyOf(ref))) return;
    const kind = assignment.environment?.kind.case ?? 'inline';
    const executor = this.#executors.get(kind);
    if (executor === undefined) {
      const message = `this agent has no environment "${kind}"; it has ${this.environments.join(', ')}`;
      this.#reject(assignment, { code: Code.ENVIRONMENT_FAILED, message }, false);
      return;
    }
    const refusal = this.#closedReason ?? (this.#active >= this.#options.slots ? 'the agent is full' : undefined);
    if (refusal !== undefined) {
      this.#reject(assignment, { code: Code.SUBMIT_FAILED, message: refusal }, true);
      return;
    }
    const denied = deniedLimit(assignment.limits, this.#options.caps);
    if (denied !== undefined) {
      this.#reject(assignment, { code: Code.POLICY_DENIED, message: denied }, false);
      return;
    }
    const arrivedAtMs = this.#nowMs();
    const refused = executor.start(assignment);
    if (refused !== undefined) {
      this.#reject(assignment, refused.error, refused.requeue);
      return;
    }
    const from = { state: 'assigned', tenant, taskClass, arrivedAtMs, askedBefore: this.#asked } as const;
    this.#add(new HeldAttempt(ref, executor, from));
  }

  cancel({ ref, grace }: CancelAttempt): void {
    const held = ref && this.#held.get(keyOf(ref));
    if (!held?.active) return;
    held.cancelGraceMs = Math.ceil(durationMs(grace));
    this.#log(held, 'cancel');
    held.executor.cancel(held, 'cancel', held.cancelGraceMs);
  }

  logStored({ ref, stdoutOffset, stderrOffset }: LogStored): void {
    const held = ref && this.#held.get(keyOf(ref));
    if (held === undefined) return;
    held.storedStdoutBytes = Number(stdoutOffset);
    held.storedStderrBytes = Number(stderrOffset);
    held.executor.acknowledgeOutput(held, held.storedStdoutBytes, held.storedStderrBytes);
  }

  resultStored(ref: AttemptKey | undefined): void {
    const held = ref && this.#held.get(keyOf(ref));
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
      // What a caller has cancelled before stays cancelled by the caller.
      held.endsWithAgent = held.cancelGraceMs === undefined;
      held.cancelGraceMs = graceMs;
      held.executor.cancel(held, 'shutdown', graceMs);
    }
  }

  // From the executors.

  onStarted(key: AttemptKey): void {
    const held = this.#held.get(keyOf(key));
    if (held?.state !== 'assigned') return;
    held.start(this.#nowMs());
    if (this.#forwards(held)) this.#options.send(startedMessage(held));
  }

  onOutput(key: AttemptKey, stream: 'stdout' | 'stderr', offset: number, data: Uint8Array): void {
    const held = this.#held.get(keyOf(key));
    if (held !== undefined && this.#forwards(held)) this.#options.send(logMessage(held, stream, offset, data));
  }

  onProgress(key: AttemptKey, percent: number, step: string): void {
    const held = this.#held.get(keyOf(key));
    if (held !== undefined && this.#forwards(held)) this.#options.send(progressMessage(held, percent, step));
  }

  onFinished(key: AttemptKey, told: AttemptEnd): void {
    const held = this.#held.get(keyOf(key));
    if (held === undefined) return;
    const end = held.endsWithAgent && told.outcome === 'cancelled' ? { ...told, ...STOPPED } : told;
    if (held.state === 'dropping') {
      this.#forget(held);
      return;
    }
    if (held.state !== 'finished') this.#finish(held, end);
    if (this.#forwards(held)) this.#options.send(resultMessage(held, end, held.prepareMs));
  }

  onRecovered(executor: Executor, listed: readonly HeldByExecutor[]): void {
    if (this.#linked) this.#replayed.add(executor);
    const present = new Set<string>();
    const running = new Set<string>();
    for (const { executionId, attempt, finished } of listed) {
      const key = keyOf({ executionId, attempt });
      present.add(key);
      if (!finished) running.add(key);
      if (!this.#held.has(key)) {
        const from = { state: finished ? 'finished' : 'running', askedBefore: this.#asked } as const;
        this.#add(new HeldAttempt({ executionId, attempt }, executor, from));
      }
    }
    for (const [key, held] of [...this.#held]) {
      if (held.executor !== executor) continue;
      if (present.has(key)) this.#recover(held, running.has(key));
      else if (held.askedBefore !== this.#asked) this.#recoverLost(held);
    }
  }

  onLost(executor: Executor): void {
    this.#asked++;
    this.#replayed.delete(executor);
  }

  #recover(held: HeldAttempt, running: boolean): void {
    if (running && held.state === 'assigned') held.start(this.#nowMs());
    if (held.active && held.cancelGraceMs !== undefined) held.executor.cancel(held, 'cancel', held.cancelGraceMs);
    if (held.state === 'running' && this.#forwards(held)) this.#options.send(startedMessage(held));
  }

  /** The executor lost the attempt with its own process: before its start it can run elsewhere, afterwards it has failed. */
  #recoverLost(held: HeldAttempt): void {
    if (held.state === 'dropping') {
      this.#remove(held);
    } else if (held.state === 'assigned') {
      if (!this.#forwards(held)) return;
      this.#remove(held);
      const message = 'the launcher was restarted before the attempt started';
      this.#reject({ ref: held, tenant: held.tenant }, { code: Code.SUBMIT_FAILED, message }, true);
    } else {
      const end = lostEnd(held);
      if (held.state === 'running') this.#finish(held, end);
      if (this.#forwards(held)) this.#options.send(resultMessage(held, end, held.prepareMs));
    }
  }

  #forwards(held: HeldAttempt): boolean {
    return this.#linked && held.state !== 'dropping' && this.#replayed.has(held.executor);
  }

  #add(held: HeldAttempt): void {
    this.#held.set(keyOf(held), held);
    if (held.active) this.#active++;
  }

  #finish(held: HeldAttempt, end: AttemptEnd): void {
    held.finish();
    this.#active--;
    const { taskClass, executor } = held;
    this.#options.onFinished({ taskClass, environment: executor.kind, outcome: end.outcome, runMs: end.runMs });
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
    held.executor.cancel(held, 'cancel', 0);
  }

  #forget(held: HeldAttempt): void {
    held.executor.forget(held);
    this.#remove(held);
  }

  #remove(held: HeldAttempt): void {
    this.#held.delete(keyOf(held));
    if (held.active) this.#active--;
    if (this.#active === 0) this.#options.onQuiet();
  }

  #reject(
    { ref, tenant }: { ref?: AttemptKey | undefined; tenant: string },
    error: Pick<ExecutionError, 'code' | 'message'>,
    requeue: boolean,
  ): void {
    if (ref === undefined) return;
    const { executionId, attempt } = ref;
    this.#options.logger.warn({ executionId, attempt, tenant, requeue, reason: error.message }, 'attempt rejected');
    this.#options.send(rejectedMessage(ref, error, requeue));
  }

  #log({ executionId, attempt, tenant }: HeldAttempt, event: 'cancel' | 'drop', reason?: string): void {
    this.#options.logger.info({ executionId, attempt, tenant, reason }, event === 'cancel' ? 'cancelling' : 'dropped');
  }
}

/** Nobody cancelled the execution: another agent may try it. */
const STOPPED: Pick<AttemptEnd, 'outcome' | 'error'> = {
  outcome: 'failed',
  error: { code: Code.AGENT_LOST, message: 'the agent was stopped' },
};

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
