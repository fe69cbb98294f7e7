import { create } from '@bufbuild/protobuf';
import { cappedExponentialMs, failpoint, type Logger, messageOf } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { ServerMessageSchema } from '@harrier/shared/gen/link';
import type { AgentRegistry } from '../agent-link/agent-registry.ts';
import type { GroupCommit } from '../db/group-commit.ts';
import type { FinishedExecution, FinishTimes } from '../db/queries/finish-executions.ts';
import { readCancelReason } from '../db/queries/read-executions.ts';
import { refuseExecution } from '../db/queries/refuse-execution.ts';
import { requeueExecution } from '../db/queries/requeue-execution.ts';
import type { Sql } from '../db/sql.ts';
import { type AttemptOutcome, outcomeWithoutResult } from './attempt-outcome.ts';
import { finishedRow } from './finished-row.ts';
import { retryDelayMs } from './retry.ts';
import { storable } from './storable.ts';
import type { TrackedExecution } from './tracked-execution.ts';

const RETRY_STORE_MS = 500;

export interface AttemptEndingsOptions {
  sql: Sql;
  registry: AgentRegistry;
  logger: Logger;
  finishes: GroupCommit<FinishedExecution, FinishTimes | undefined>;
  /** This replica. */
  replicaId: string;
  /** The execution's slot is free again. */
  release: (agentId: string, executionId: string) => void;
  /** Something entered the queue. */
  queued: () => void;
  /** The execution is over, here or elsewhere: nothing of it needs to stay in memory. */
  forget: (tracked: TrackedExecution) => void;
  /** An execution is over. */
  onFinished: (tracked: TrackedExecution) => void;
}

/**
 * How attempts end: each frees its slot at once, waits for its log to be stored, and then either its execution waits for
 * another attempt or it is over. An attempt ends once: calls for one that is ending change nothing. None of them rejects
 * for a database that is away; they try again until it is back or `stop` is called.
 */
export class AttemptEndings {
  readonly #options: AttemptEndingsOptions;
  readonly #stopping = new AbortController();

  constructor(options: AttemptEndingsOptions) {
    this.#options = options;
  }

  /** What is not stored yet stays with the agents. */
  stop(): void {
    this.#stopping.abort(new Error('the control plane stops'));
  }

  /** The agent told the outcome, or refused the attempt for good. */
  async end(tracked: TrackedExecution, outcome: AttemptOutcome): Promise<void> {
    await this.#end(tracked, outcome, false);
  }

  /** The attempt is gone with its agent. */
  async lose(tracked: TrackedExecution, reason: string): Promise<void> {
    const written = { stdout: tracked.log?.stdout.end ?? 0, stderr: tracked.log?.stderr.end ?? 0 };
    await this.#end(tracked, outcomeWithoutResult(Code.AGENT_LOST, reason, written), false);
  }

  /** Puts it back without counting a failure: nothing is wrong with it, and it did not start. */
  async requeue(tracked: TrackedExecution, code: Code, message: string): Promise<void> {
    if (tracked.ending) return;
    tracked.requeues++;
    await this.#end(tracked, outcomeWithoutResult(code, message, NOTHING), true);
  }

  /** It was cancelled while it waited. */
  cancelledWhileWaiting(tracked: TrackedExecution, reason: string): void {
    this.#endedWhileWaiting(tracked, outcomeWithoutResult(Code.CANCELLED, reason, NOTHING), new Date());
  }

  /** It waits for what no agent can do: it is over, unless it does not wait any more. Rejects when the database is away. */
  async refuse(tracked: TrackedExecution, message: string, details: object): Promise<void> {
    const outcome = outcomeWithoutResult(Code.NO_ELIGIBLE_AGENT, message, NOTHING);
    if (outcome.error !== undefined) outcome.error.details = JSON.stringify(details);
    const endTime = await refuseExecution(this.#options.sql, {
      tenantId: tracked.resolved.tenantId,
      id: tracked.id,
      state: outcome.state,
      errorCode: Code.NO_ELIGIBLE_AGENT,
      errorMessage: outcome.error?.message ?? message,
      errorDetails: outcome.error?.details ?? null,
    });
    if (endTime !== undefined) this.#endedWhileWaiting(tracked, outcome, endTime);
  }

  #endedWhileWaiting(tracked: TrackedExecution, outcome: AttemptOutcome, endTime: Date): void {
    const { current, resolved } = tracked;
    this.#conclude(tracked, finishedRow(resolved, current.attempt, null, outcome, tracked.log), {
      queue_time: tracked.times.queueTime,
      assign_time: null,
      start_time: null,
      end_time: endTime,
    });
  }

  /** Ends an attempt: the execution is over, or waits for the next one. */
  async #end(tracked: TrackedExecution, outcome: AttemptOutcome, requeue: boolean): Promise<void> {
    if (tracked.ending) return;
    tracked.ending = true;
    const { agentId, attempt } = tracked.current;
    this.#options.release(agentId, tracked.id);
    try {
      await tracked.log?.allStored(this.#stopping.signal);
      // Its start is told before its end.
      await tracked.storing;
      const again = await this.#tryAgain(tracked, outcome, requeue);
      if (!again) await this.#finish(tracked, outcome);
      const message = { case: 'resultStored', value: { ref: { executionId: tracked.id, attempt } } } as const;
      this.#options.registry.sendLater(agentId, create(ServerMessageSchema, { message }));
    } catch (error) {
      if (this.#stopping.signal.aborted) return;
      this.#options.logger.error({ err: error, executionId: tracked.id }, 'the end of an attempt could not be stored');
    }
  }

  /** @returns whether the execution waits for another attempt now. */
  async #tryAgain(tracked: TrackedExecution, outcome: AttemptOutcome, requeue: boolean): Promise<boolean> {
    if (outcome.state === State.SUCCEEDED || tracked.cancelReason !== undefined) return false;
    const code = outcome.error?.code ?? Code.INTERNAL;
    const backoffMs = requeue
      ? requeueDelayMs(tracked.requeues)
      : retryDelayMs(tracked.resolved.retryPolicy, code, tracked.failures + 1);
    if (backoffMs === undefined) return false;
    const { current, resolved } = tracked;
    failpoint('retry-before-commit');
    const due = await this.#store(() =>
      requeueExecution(this.#options.sql, {
        id: tracked.id,
        tenantId: resolved.tenantId,
        attempt: current.attempt,
        agentId: current.agentId,
        state: outcome.state,
        errorCode: code,
        errorMessage: outcome.error?.message ?? null,
        errorDetails: outcome.error?.details ?? null,
        exitCode: outcome.exitCode ?? null,
        stdoutBytes: outcome.stdoutBytes,
        stderrBytes: outcome.stderrBytes,
        ran: outcome.runMs !== undefined,
        failure: !requeue,
        backoffMs,
        pending: State.PENDING,
        replicaId: this.#options.replicaId,
      }),
    );
    failpoint('retry-committed');
    if (due === undefined) {
      // Perhaps because a caller wants it to stop, and this replica has not been told yet.
      const { tenantId } = resolved;
      tracked.cancelReason ??= await this.#store(() => readCancelReason(this.#options.sql, tenantId, tracked.id));
      return false;
    }
    if (!requeue) tracked.failures++;
    tracked.times.queueTime = due;
    tracked.times.assignTime = undefined;
    tracked.times.startTime = undefined;
    tracked.nextAttemptTime = due;
    tracked.ending = false;
    tracked.move({ state: State.PENDING, attempt: current.attempt, agentId: '' });
    this.#options.queued();
    return true;
  }

  async #finish(tracked: TrackedExecution, given: AttemptOutcome): Promise<void> {
    const { current, resolved, cancelReason } = tracked;
    const outcome =
      cancelReason !== undefined && given.state !== State.SUCCEEDED ? asCancelled(given, cancelReason) : given;
    let row = finishedRow(resolved, current.attempt, current.agentId, outcome, tracked.log);
    failpoint('result-before-commit');
    const times = await this.#store(() => this.#options.finishes.add(row)).catch((error: unknown) => {
      if (!isRefused(error)) throw error;
      const bare = outcomeWithoutResult(Code.INTERNAL, `the result could not be stored: ${messageOf(error)}`, NOTHING);
      row = finishedRow(resolved, current.attempt, current.agentId, bare, undefined);
      return this.#options.finishes.add(row);
    });
    failpoint('result-committed');
    if (times === undefined) {
      // Another replica or a sweep ended it: what stands in the database is the truth.
      this.#options.forget(tracked);
      tracked.changed.notify();
      return;
    }
    this.#conclude(tracked, row, times);
  }

  #conclude(tracked: TrackedExecution, row: FinishedExecution, times: FinishTimes): void {
    tracked.result = row;
    tracked.times.startTime = times.start_time ?? undefined;
    tracked.times.endTime = times.end_time;
    this.#options.forget(tracked);
    tracked.move({ state: row.state as State, attempt: row.attempt, agentId: row.agent_id ?? '' });
    tracked.log?.changed.notify();
    this.#options.onFinished(tracked);
  }

  /** Writes until it is written: a result that an agent holds must not be lost to a database that is away. */
  async #store<Result>(write: () => Promise<Result>): Promise<Result> {
    while (true) {
      try {
        return await write();
      } catch (error) {
        this.#stopping.signal.throwIfAborted();
        if (isRefused(error)) throw error;
        this.#options.logger.error({ reason: messageOf(error) }, 'a result could not be stored; trying again');
        await new Promise((resolve) => setTimeout(resolve, RETRY_STORE_MS));
      }
    }
  }
}

const NOTHING = { stdout: 0, stderr: 0 };

/** The database will never take it: SQLSTATE classes 22 (data) and 23 (constraints). */
function isRefused(error: unknown): boolean {
  const code = (error as { code?: unknown } | undefined)?.code;
  return typeof code === 'string' && /^2[23]\d{3}$/.test(code);
}

/** At once, then longer and longer: an agent that refuses again and again must not keep everybody busy. */
function requeueDelayMs(requeues: number): number {
  return requeues <= 1 ? 0 : cappedExponentialMs(requeues - 2, { initialMs: 100, maxMs: 30_000, multiplier: 2 });
}

function asCancelled(outcome: AttemptOutcome, reason: string): AttemptOutcome {
  return {
    ...outcome,
    state: State.CANCELLED,
    outputJson: undefined,
    error: { code: Code.CANCELLED, message: storable(reason), details: undefined },
  };
}
