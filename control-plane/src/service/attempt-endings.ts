import { create } from '@bufbuild/protobuf';
import {
  type BackoffOptions,
  cappedExponentialMs,
  failpoint,
  fullJitterMs,
  type Logger,
  messageOf,
} from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { Goodbye_Code as GoodbyeCode, ServerMessageSchema } from '@harrier/shared/gen/link';
import type { AgentRegistry } from '../agent-link/agent-registry.ts';
import { databaseErrorCode, isDatabaseAway, isDatabaseFull } from '../db/database-away.ts';
import type { GroupCommit } from '../db/group-commit.ts';
import {
  type FinishedExecution,
  type FinishTimes,
  finishExecutions,
  finishLeaseless,
} from '../db/queries/finish-executions.ts';
import { readCancelReason } from '../db/queries/read-executions.ts';
import { refuseExecution } from '../db/queries/refuse-execution.ts';
import { requeueExecution } from '../db/queries/requeue-execution.ts';
import { isRefused } from '../db/refused-for-good.ts';
import type { Sql } from '../db/sql.ts';
import { laneShape } from '../scheduler/requirement.ts';
import type { AttemptLog } from './attempt-log.ts';
import { type AttemptOutcome, outcomeWithoutResult } from './attempt-outcome.ts';
import { finishedRow } from './finished-row.ts';
import { retryDelayMs } from './retry.ts';
import { storable } from './storable.ts';
import type { StoreRetries } from './store-retries.ts';
import type { StateChange, TrackedExecution } from './tracked-execution.ts';

export interface AttemptEndingsOptions {
  sql: Sql;
  registry: AgentRegistry;
  logger: Logger;
  retries: StoreRetries;
  finishes: GroupCommit<FinishedExecution, FinishTimes | undefined>;
  /** This replica. */
  replicaId: string;
  /** The execution's slot is free again. */
  release: (agentId: string, executionId: string) => void;
  /** Something entered the queue. */
  queued: () => void;
  /** The execution is over, here or elsewhere: nothing of it needs to stay in memory. */
  forget: (tracked: TrackedExecution) => void;
  /** An attempt ended with this code, and another one follows. */
  onRetry: (tracked: TrackedExecution, code: Code) => void;
  /** An execution is over. */
  onFinished: (tracked: TrackedExecution) => void;
}

/** An attempt that is being ended. */
interface Ending {
  tracked: TrackedExecution;
  /** The attempt, as it was when it ended. What is followed by then may be another one: its end is never written from there. */
  current: StateChange;
  outcome: AttemptOutcome;
  /** Nothing is wrong with it, and it did not start. */
  requeue: boolean;
  /** It is over because its agent has no lease: not if the agent has one by the time this is stored. */
  leaseless: boolean;
  /** Why the database has refused it, in whatever form, as `causeOf` tells; undefined: it has not. */
  cause: string | undefined;
  /** The database has answered that it does not take it. */
  onRefused: () => void;
}

/**
 * How attempts end: each frees its slot at once, waits for its log to be stored, and then either its execution waits for
 * another attempt or it is over. An attempt ends once: calls for one that is ending change nothing. None of them rejects
 * for a database that is away; they try again until it is back or the retries are stopped. What the database refuses for good is
 * stored as an end without its result; where it refuses that too, both are tried again every few minutes, and nobody waits for it.
 * Refused ends are written apart from the others, and however many they are, they cost the database little.
 */
export class AttemptEndings {
  readonly #options: AttemptEndingsOptions;
  /** When an end was last refused for a cause, or last tried in spite of it; none has been taken since. */
  readonly #refusedMs = new Map<string, number>();
  /** Settled when the write of a refused end is over that is the last so far. */
  #lastTurn: Promise<unknown> = Promise.resolve();

  constructor(options: AttemptEndingsOptions) {
    this.#options = options;
  }

  /** The agent told the outcome, or refused the attempt for good. */
  async end(tracked: TrackedExecution, outcome: AttemptOutcome): Promise<void> {
    await this.#end(tracked, outcome, {});
  }

  /** The attempt is gone with its agent. */
  async lose(tracked: TrackedExecution, reason: string): Promise<void> {
    await this.#end(tracked, lostOutcome(tracked, reason), {});
  }

  /**
   * The attempt is lost with the lease of its agent. If the agent has a lease by the time that this is stored nothing is ended:
   * the execution is forgotten, and whoever has the agent's link follows it anew.
   */
  async loseLeaseless(tracked: TrackedExecution, reason: string): Promise<void> {
    await this.#end(tracked, lostOutcome(tracked, reason), { leaseless: true });
  }

  /** Puts it back without counting a failure: nothing is wrong with it, and it did not start. */
  async requeue(tracked: TrackedExecution, code: Code, message: string): Promise<void> {
    if (tracked.ending) return;
    tracked.requeues++;
    await this.#end(tracked, outcomeWithoutResult(code, message, NOTHING), { requeue: true });
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

  /**
   * Ends an attempt: the execution is over, or waits for the next one. Resolves when that is stored, or when the database has
   * answered that it does not take it: whoever has others to end does not wait for this one.
   */
  async #end(
    tracked: TrackedExecution,
    outcome: AttemptOutcome,
    { requeue = false, leaseless = false }: { requeue?: boolean; leaseless?: boolean },
  ): Promise<void> {
    if (tracked.ending) return;
    tracked.ending = true;
    const { current } = tracked;
    this.#options.release(current.agentId, tracked.id);
    const refused = Promise.withResolvers<void>();
    const { resolve: onRefused } = refused;
    const ending: Ending = { tracked, current, outcome, requeue, leaseless, cause: undefined, onRefused };
    await Promise.race([this.#untilStored(ending), refused.promise]);
  }

  /** Never rejects. */
  async #untilStored(ending: Ending): Promise<void> {
    const { tracked } = ending;
    const { retries, registry, logger } = this.#options;
    const { agentId, attempt } = ending.current;
    const about = { executionId: tracked.id, attempt, agentId };
    try {
      // Without it the attempt is somebody else's by now, who ends it, or this replica stops.
      if ((await tracked.log?.allStored(retries.stopping)) === false) return;
      if (tracked.log?.attempt === attempt) ending.outcome = withWholeLog(ending.outcome, tracked.log);
      // Its start is told before its end.
      await tracked.storing;
      let loggedMs = Number.NEGATIVE_INFINITY;
      let pauses = 0;
      for (;;) {
        const refusal = await this.#store(ending);
        if (refusal === undefined) break;
        tracked.endRefused = `the database refuses to store its end, which is tried again every few minutes: ${messageOf(refusal)}`;
        tracked.changed.notify();
        const nowMs = performance.now();
        if (nowMs - loggedMs >= LINE_EVERY_MS) {
          loggedMs = nowMs;
          logger.error({ ...about, ...factsOf(refusal) }, REFUSED);
        }
        const cause = causeOf(refusal);
        this.#refusedMs.set(cause, nowMs);
        do {
          await retries.pause(fullJitterMs(pauses++, REFUSED_AGAIN));
        } while (!this.#isWorthATry(cause));
      }
      if (ending.cause !== undefined) this.#refusedMs.delete(ending.cause);
      // Whoever has no lease is not linked, or has an attempt that goes on.
      if (ending.leaseless) return;
      const message = { case: 'resultStored', value: { ref: { executionId: tracked.id, attempt } } } as const;
      registry.sendLater(agentId, create(ServerMessageSchema, { message }));
    } catch (error) {
      if (retries.stopping.aborted) return;
      logger.error({ err: error, executionId: tracked.id }, 'the end of an attempt could not be stored');
    }
  }

  /** Whether none was tried just now that is refused for the same cause. Once one is taken, all are worth it. */
  #isWorthATry(cause: string): boolean {
    const nowMs = performance.now();
    const refusedMs = this.#refusedMs.get(cause);
    if (refusedMs === undefined) return true;
    if (nowMs - refusedMs < SAME_CAUSE_MS) return false;
    this.#refusedMs.set(cause, nowMs);
    return true;
  }

  /** @returns why the database will take the end in none of its forms, as things are; undefined: it is stored */
  async #store(ending: Ending): Promise<unknown> {
    let { outcome } = ending;
    try {
      if (await this.#tryAgain(ending)) return undefined;
    } catch (error) {
      if (!isRefused(error)) throw error;
      outcome = withoutAnother(outcome, error);
    }
    return await this.#finish(ending, outcome);
  }

  /** @returns whether the execution waits for another attempt now, or is not this replica's to end. */
  async #tryAgain(ending: Ending): Promise<boolean> {
    const { tracked, current, outcome, requeue, leaseless } = ending;
    if (outcome.state === State.SUCCEEDED || tracked.cancelReason !== undefined) return false;
    const code = outcome.error?.code ?? Code.INTERNAL;
    const backoffMs = requeue
      ? requeueDelayMs(tracked.requeues)
      : retryDelayMs(tracked.resolved.retryPolicy, code, tracked.failures + 1);
    if (backoffMs === undefined) return false;
    const { resolved } = tracked;
    failpoint('retry-before-commit');
    const due = await this.#write(ending, () =>
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
        leaseless,
        failure: !requeue,
        backoffMs,
        pending: State.PENDING,
        replicaId: this.#options.replicaId,
        shape: laneShape(resolved.requirement),
      }),
    );
    failpoint('retry-committed');
    if (due === undefined) {
      // Perhaps because a caller wants it to stop, and this replica has not been told yet.
      const { tenantId } = resolved;
      tracked.cancelReason ??= await this.#write(ending, () =>
        readCancelReason(this.#options.sql, tenantId, tracked.id),
      );
      if (!leaseless || tracked.cancelReason !== undefined) return false;
      // The agent may have lost its lease once more by now: that is another decision, which has its own time.
      this.#passOver(ending);
      return true;
    }
    if (!requeue) tracked.failures++;
    this.#options.onRetry(tracked, code);
    tracked.times.queueTime = due;
    tracked.times.assignTime = undefined;
    tracked.times.startTime = undefined;
    tracked.nextAttemptTime = due;
    tracked.ending = false;
    this.#taken(tracked);
    tracked.move({ state: State.PENDING, attempt: current.attempt, agentId: '' });
    this.#options.queued();
    return true;
  }

  /** @returns as `#store` */
  async #finish(ending: Ending, given: AttemptOutcome): Promise<unknown> {
    const { tracked, current } = ending;
    const { resolved, cancelReason } = tracked;
    const outcome =
      cancelReason !== undefined && given.state !== State.SUCCEEDED ? asCancelled(given, cancelReason) : given;
    const whole = finishedRow(resolved, current.attempt, current.agentId, outcome, tracked.log);
    const refusal = await this.#accept(ending, whole);
    if (refusal === undefined) return undefined;
    const why = `the result could not be stored: ${messageOf(refusal)}`;
    const written = { stdout: outcome.stdoutBytes, stderr: outcome.stderrBytes };
    const bare = outcomeWithoutResult(Code.INTERNAL, why, written);
    return await this.#accept(ending, finishedRow(resolved, current.attempt, current.agentId, bare, undefined));
  }

  /** @returns as `#store` */
  async #accept(ending: Ending, row: FinishedExecution): Promise<unknown> {
    const { tracked } = ending;
    failpoint('result-before-commit');
    let times: FinishTimes | undefined;
    try {
      times = await this.#write(ending, async () => {
        if (ending.leaseless) return await finishLeaseless(this.#options.sql, row);
        if (ending.cause === undefined) return await this.#options.finishes.add(row);
        const [accepted] = await finishExecutions(this.#options.sql, [row]);
        return accepted;
      });
    } catch (error) {
      if (!isRefused(error)) throw error;
      return error;
    }
    failpoint('result-committed');
    if (times === undefined) this.#passOver(ending);
    else this.#conclude(tracked, row, times);
    return undefined;
  }

  /** Another replica or a sweep ended it, or its agent is back: what stands in the database is the truth. */
  #passOver({ tracked, current, leaseless }: Ending): void {
    tracked.endRefused = undefined;
    this.#options.forget(tracked);
    tracked.changed.notify();
    // Its attempts are followed anew with its next link, which tells also what was passed over meanwhile.
    const agent = leaseless ? this.#options.registry.get(current.agentId) : undefined;
    agent?.channel.close(GoodbyeCode.SHUTDOWN, 'the attempts of this agent are to be told anew');
  }

  #conclude(tracked: TrackedExecution, row: FinishedExecution, times: FinishTimes): void {
    tracked.result = row;
    tracked.times.startTime = times.start_time ?? undefined;
    tracked.times.endTime = times.end_time;
    this.#options.forget(tracked);
    this.#taken(tracked);
    tracked.move({ state: row.state as State, attempt: row.attempt, agentId: row.agent_id ?? '' });
    tracked.log?.changed.notify();
    this.#options.onFinished(tracked);
  }

  /** Its end is stored; whoever is told of that must not be told any more that it is refused. */
  #taken(tracked: TrackedExecution): void {
    if (tracked.endRefused === undefined) return;
    tracked.endRefused = undefined;
    const { agentId, attempt } = tracked.current;
    const about = { executionId: tracked.id, attempt, agentId };
    this.#options.logger.info(about, 'the database has taken the end that it refused');
  }

  /** Writes until it is written: a result that an agent holds must not be lost to a database that is away. */
  #write<Result>(ending: Ending, write: () => Promise<Result>): Promise<Result> {
    const { tracked, current, onRefused } = ending;
    const about = { executionId: tracked.id, attempt: current.attempt };
    const answered = async () => {
      try {
        return await (ending.cause === undefined ? write() : this.#inTurn(write));
      } catch (error) {
        if (isRefused(error)) ending.cause = causeOf(error);
        if (!isDatabaseAway(error) && !isDatabaseFull(error)) onRefused();
        throw error;
      }
    };
    return this.#options.retries.store({ what: 'a result', about, isFinal: isRefused }, answered);
  }

  /** One at a time, so that others of the replica have the database to themselves. */
  #inTurn<Result>(write: () => Promise<Result>): Promise<Result> {
    const turn = this.#lastTurn.then(write);
    this.#lastTurn = turn.catch(() => undefined);
    return turn;
  }
}

function lostOutcome({ log }: TrackedExecution, reason: string): AttemptOutcome {
  const written = { stdout: log?.stdout.end ?? 0, stderr: log?.stderr.end ?? 0 };
  return outcomeWithoutResult(Code.AGENT_LOST, reason, written);
}

/**
 * Readers go by the end that is recorded: all that came belongs to the log, also of an attempt that did not start, whose
 * environment may have printed something.
 */
function withWholeLog(outcome: AttemptOutcome, { stdout, stderr }: AttemptLog): AttemptOutcome {
  const stdoutBytes = Math.max(outcome.stdoutBytes, stdout.end);
  return { ...outcome, stdoutBytes, stderrBytes: Math.max(outcome.stderrBytes, stderr.end) };
}

const NOTHING = { stdout: 0, stderr: 0 };
/** Between two tries of an end that the database refuses in every form: until somebody has removed the cause. */
const REFUSED_AGAIN: BackoffOptions = { initialMs: 60_000, maxMs: 300_000, multiplier: 2 };
/** Of the ends that are refused for one cause, one is tried in this time; those that were due with it wait for their next turn. */
const SAME_CAUSE_MS = 200;
/** Such an end is logged at its first try and then so often. */
const LINE_EVERY_MS = 3_600_000;
const REFUSED =
  'the database refuses the end of an attempt, also without its result; it is tried again every few minutes, and the execution does ' +
  'not end before it is taken: remove the constraint, or whatever "reason" tells of; nothing needs to be restarted';

/** For whoever is to remove the cause. What PostgreSQL says in detail is left out: it quotes the row, with what callers have sent. */
function factsOf(refusal: unknown): Record<string, unknown> {
  const { table_name: table, constraint_name: constraint } = (refusal ?? {}) as Record<string, unknown>;
  return { sqlState: databaseErrorCode(refusal), table, constraint, reason: messageOf(refusal) };
}

/** What is the same for all that the database refuses for the same reason. */
function causeOf(refusal: unknown): string {
  const { sqlState, table, constraint } = factsOf(refusal);
  return [sqlState, table, constraint].join(' ');
}

/** How an execution ends whose next attempt cannot be stored. */
function withoutAnother(outcome: AttemptOutcome, refusal: unknown): AttemptOutcome {
  const { code = Code.INTERNAL, message = '', details } = outcome.error ?? {};
  const why = storable(messageOf(refusal));
  return { ...outcome, error: { code, message: `${message}; another attempt could not be stored: ${why}`, details } };
}

/**
 * At once, then longer and longer: an agent that refuses again and again must not keep everybody busy.
 * @param requeues how often it was put back, with this time
 */
export function requeueDelayMs(requeues: number): number {
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
