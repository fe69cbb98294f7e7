import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { cappedExponentialMs, isFinal, LinkProtocolError, type Logger, messageOf } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State, LogChunk_Stream as Stream } from '@harrier/shared/gen/execution';
import type {
  AgentMessage,
  AttemptLog as AttemptLogMessage,
  AttemptRef,
  AttemptRejected,
  AttemptResult,
  Hello,
} from '@harrier/shared/gen/link';
import { ServerMessageSchema } from '@harrier/shared/gen/link';
import type { AgentRegistry, LinkedAgent } from '../agent-link/agent-registry.ts';
import type { LinkedAnswer } from '../agent-link/agent-session.ts';
import type { GroupCommit } from '../db/group-commit.ts';
import type { FinishedExecution, FinishTimes } from '../db/queries/finish-executions.ts';
import { type NewLogChunk, storedLogBytes } from '../db/queries/log-chunks.ts';
import { type ActiveRow, listActiveOfAgent } from '../db/queries/read-executions.ts';
import { requeueExecution } from '../db/queries/requeue-execution.ts';
import type { Sql } from '../db/sql.ts';
import { AttemptLog, type LogStreamName } from './attempt-log.ts';
import { type AttemptOutcome, outcomeOfResult, outcomeWithoutResult } from './attempt-outcome.ts';
import { durationOf } from './duration.ts';
import { assignmentMessage, type ResolvedExecution } from './resolved-execution.ts';
import { retryDelayMs } from './retry.ts';
import { StateWriter } from './state-writer.ts';
import { storable } from './storable.ts';
import { type ExecutionTimes, TrackedExecution } from './tracked-execution.ts';

/** Time between asking a cancelled attempt to stop and killing it. */
const CANCEL_GRACE_MS = 5_000;
/** Bytes of the end of each stream that are stored with the execution. */
const TAIL_BYTES = 4096;
const RETRY_STORE_MS = 500;
/** An agent sends at most 1 MiB of an attempt that is not stored; what is far beyond is not the protocol. */
const MAX_UNSTORED_BYTES = 4 * 1024 * 1024;
/** A claim that was committed but never sent, because the control plane failed in between, is older than this. */
const UNFOLLOWED_AFTER_MS = 15_000;

export interface ExecutionTrackerOptions {
  sql: Sql;
  registry: AgentRegistry;
  logger: Logger;
  finishes: GroupCommit<FinishedExecution, FinishTimes | undefined>;
  logs: GroupCommit<NewLogChunk, void>;
  /** Rebuilds what a stored row asks for. */
  resolveRow: (row: ActiveRow) => Promise<ResolvedExecution>;
  /** A slot is free again. */
  release: (agentId: string) => void;
  /** Something entered the queue. */
  queued: () => void;
  /** An execution is over. */
  onFinished: (tracked: TrackedExecution) => void;
}

/**
 * Follows the executions that this replica has accepted or whose agents are linked to it, from assignment to result. It
 * holds nothing that the database and the agents could not tell again.
 */
export class ExecutionTracker {
  readonly #options: ExecutionTrackerOptions;
  readonly #tracked = new Map<string, TrackedExecution>();
  readonly #states: StateWriter;
  readonly #stopping = new AbortController();

  constructor(options: ExecutionTrackerOptions) {
    this.#options = options;
    this.#states = new StateWriter(options.sql, options.logger);
  }

  get(id: string): TrackedExecution | undefined {
    return this.#tracked.get(id);
  }

  /** Begins to follow an execution. */
  track(resolved: ResolvedExecution, times: ExecutionTimes, failures: number): TrackedExecution {
    const tracked = new TrackedExecution(resolved, times, failures);
    this.#tracked.set(resolved.id, tracked);
    return tracked;
  }

  forget(tracked: TrackedExecution): void {
    if (this.#tracked.get(tracked.id) === tracked) this.#tracked.delete(tracked.id);
  }

  stop(): void {
    this.#states.stop();
    this.#stopping.abort(new Error('the control plane stops'));
  }

  /** The database says that the attempt is the agent's: tells the agent. */
  assign(tracked: TrackedExecution, agentId: string, attempt: number, assignTime: Date): void {
    // The agent may have been linked anew since the claim: then its attempts were looked at already.
    if (tracked.ending || attempt <= tracked.current.attempt) return;
    tracked.times.assignTime = assignTime;
    tracked.nextAttemptTime = undefined;
    tracked.progress = undefined;
    tracked.log?.close();
    tracked.log = this.#openLog(tracked.resolved, attempt, { stdout: 0, stderr: 0 });
    tracked.move({ state: State.ASSIGNED, attempt, agentId });
    const { registry } = this.#options;
    if (!registry.send(agentId, assignmentMessage(tracked.resolved, attempt))) {
      this.#watch(this.#requeue(tracked, Code.SUBMIT_FAILED, 'the agent was gone before it could be told'));
    } else if (tracked.cancelReason !== undefined) this.#sendCancel(tracked);
  }

  /** A caller wants it to stop; the database knows. */
  requestCancel(tracked: TrackedExecution, reason: string): void {
    tracked.cancelReason ??= reason;
    this.#sendCancel(tracked);
  }

  /** It was cancelled while it waited. */
  cancelledWhileWaiting(tracked: TrackedExecution, reason: string): void {
    const { current, resolved } = tracked;
    const outcome = outcomeWithoutResult(Code.CANCELLED, reason, { stdout: 0, stderr: 0 });
    this.#conclude(tracked, finishedRow(resolved, current.attempt, null, outcome, tracked.log), {
      queue_time: tracked.times.queueTime,
      assign_time: null,
      start_time: null,
      end_time: new Date(),
    });
  }

  /** A message of an agent about one of its attempts. */
  handle(agent: LinkedAgent, message: AgentMessage['message']): void {
    switch (message.case) {
      case 'preparing':
        this.#advance(agent, message.value.ref, State.PREPARING);
        break;
      case 'started':
        this.#advance(agent, message.value.ref, State.RUNNING);
        break;
      case 'log':
        this.#log(agent, message.value);
        break;
      case 'progress':
        this.#heldBy(agent, message.value.ref)?.setProgress({
          percent: Math.min(100, Math.max(0, message.value.progress?.percent ?? 0)),
          step: message.value.progress?.step ?? '',
        });
        break;
      case 'result':
        this.#checkLog(this.#held(agent, message.value.ref), message.value);
        this.#watch(this.#result(agent, message.value));
        break;
      case 'rejected':
        this.#watch(this.#rejected(agent, message.value));
        break;
      default:
        throw new LinkProtocolError(`"${message.case ?? 'nothing'}" is not known`);
    }
  }

  /**
   * An agent is linked (again): what it holds and the database still wants goes on; what it does not hold any more is lost,
   * or, when its process is the same that was told, never reached it and waits again.
   */
  async reconcile(agent: LinkedAgent, hello: Hello, previousInstanceId: string): Promise<LinkedAnswer> {
    const cancelled: TrackedExecution[] = [];
    const afterWelcome = () => {
      for (const tracked of cancelled) this.#sendCancel(tracked);
    };
    const answer: LinkedAnswer = { resume: [], drop: [], active: 0, afterWelcome };
    const rows = new Map<string, ActiveRow>();
    for (const row of await listActiveOfAgent(this.#options.sql, agent.id)) rows.set(`${row.id} ${row.attempt}`, row);
    for (const { ref } of hello.held) {
      if (ref === undefined) throw new LinkProtocolError('a held attempt has no name');
      const key = `${ref.executionId} ${ref.attempt}`;
      const row = rows.get(key);
      rows.delete(key);
      if (row === undefined) {
        answer.drop.push({ executionId: ref.executionId, attempt: ref.attempt });
        continue;
      }
      const tracked = await this.#adopt(row, agent.id);
      // One whose result is being stored has given its slot back already.
      if (!tracked.ending) answer.active++;
      answer.resume.push({
        executionId: row.id,
        attempt: row.attempt,
        stdoutOffset: BigInt(tracked.log?.stdout.stored ?? 0),
        stderrOffset: BigInt(tracked.log?.stderr.stored ?? 0),
      });
      if (tracked.cancelReason !== undefined) cancelled.push(tracked);
    }
    const sameProcess = previousInstanceId !== '' && previousInstanceId === hello.instanceId;
    for (const row of rows.values()) {
      const tracked = await this.#adopt(row, agent.id);
      if (sameProcess)
        this.#watch(this.#requeue(tracked, Code.SUBMIT_FAILED, 'the assignment did not reach the agent'));
      else this.#watch(this.#lose(tracked, `agent ${agent.name} was started anew without this attempt`));
    }
    return answer;
  }

  /** Puts back what the database gives to an agent that is linked here, but that was never told: a failure came in between. */
  async sweepUnfollowed(): Promise<void> {
    for (const agent of [...this.#options.registry.candidates()]) {
      for (const row of await listActiveOfAgent(this.#options.sql, agent.id)) {
        const ageMs = Date.now() - (row.assign_time?.getTime() ?? 0);
        if (this.#tracked.has(row.id) || ageMs < UNFOLLOWED_AFTER_MS) continue;
        this.#options.logger.warn(
          { executionId: row.id, agentId: agent.id },
          'an attempt was not followed; putting it back',
        );
        await this.#requeue(await this.#adopt(row, agent.id), Code.SUBMIT_FAILED, 'the assignment was not sent');
      }
    }
  }

  /** An agent will not come back: its attempts are over. */
  async agentLost(agentId: string, reason: string): Promise<void> {
    for (const row of await listActiveOfAgent(this.#options.sql, agentId)) {
      await this.#lose(await this.#adopt(row, agentId), reason);
    }
  }

  /** Follows an attempt that the database gives to an agent; what memory has of it already stays. */
  async #adopt(row: ActiveRow, agentId: string): Promise<TrackedExecution> {
    const known = this.#tracked.get(row.id);
    if (known?.isHeldBy(agentId, row.attempt)) {
      known.cancelReason ??= row.cancel_reason ?? undefined;
      return known;
    }
    const resolved = await this.#options.resolveRow(row);
    const tracked = known ?? this.track(resolved, timesOf(row), row.failures);
    tracked.cancelReason = row.cancel_reason ?? undefined;
    tracked.log = this.#openLog(resolved, row.attempt, {
      stdout: await this.#storedBytes(row, Stream.STDOUT),
      stderr: await this.#storedBytes(row, Stream.STDERR),
    });
    tracked.history.push({ state: row.state as State, attempt: row.attempt, agentId });
    tracked.changed.notify();
    return tracked;
  }

  #storedBytes(row: ActiveRow, stream: LogStreamName): Promise<number> {
    const range = { tenantId: row.tenant_id, executionId: row.id, attempt: row.attempt, stream };
    return storedLogBytes(this.#options.sql, range);
  }

  #openLog(resolved: ResolvedExecution, attempt: number, stored: { stdout: number; stderr: number }): AttemptLog {
    return new AttemptLog({
      tenantId: resolved.tenantId,
      executionId: resolved.id,
      attempt,
      stored,
      writer: this.#options.logs,
      logger: this.#options.logger,
      onStored: (log) => this.#acknowledgeLog(resolved.id, log),
    });
  }

  #acknowledgeLog(executionId: string, log: AttemptLog): void {
    const agentId = this.#tracked.get(executionId)?.current.agentId;
    if (agentId === undefined) return;
    this.#send(agentId, {
      case: 'logStored',
      value: {
        ref: { executionId, attempt: log.attempt },
        stdoutOffset: BigInt(log.stdout.stored),
        stderrOffset: BigInt(log.stderr.stored),
      },
    });
  }

  #send(agentId: string, message: NonNullable<MessageInitShape<typeof ServerMessageSchema>['message']>): void {
    this.#options.registry.send(agentId, create(ServerMessageSchema, { message }));
  }

  #sendCancel(tracked: TrackedExecution): void {
    const { state, agentId, attempt } = tracked.current;
    if (agentId === '' || state === State.PENDING || isFinal(state)) return;
    const ref = { executionId: tracked.id, attempt };
    this.#send(agentId, { case: 'cancel', value: { ref, grace: durationOf(CANCEL_GRACE_MS) } });
  }

  #held(agent: LinkedAgent, ref: AttemptRef | undefined): TrackedExecution | undefined {
    const tracked = ref === undefined ? undefined : this.#tracked.get(ref.executionId);
    return ref !== undefined && tracked?.isHeldBy(agent.id, ref.attempt) ? tracked : undefined;
  }

  /** The execution, if the attempt is still this agent's; tells the agent to drop it otherwise. */
  #heldBy(agent: LinkedAgent, ref: AttemptRef | undefined): TrackedExecution | undefined {
    if (ref === undefined) throw new LinkProtocolError('a message names no attempt');
    const tracked = this.#held(agent, ref);
    if (tracked !== undefined) return tracked;
    this.#send(agent.id, { case: 'drop', value: { ref, reason: 'the attempt is not this agent’s any more' } });
    return undefined;
  }

  #advance(agent: LinkedAgent, ref: AttemptRef | undefined, state: State): void {
    const tracked = this.#heldBy(agent, ref);
    if (tracked === undefined || !tracked.move({ ...tracked.current, state })) return;
    if (state === State.RUNNING) tracked.times.startTime = new Date();
    this.#states.add(tracked);
  }

  #log(agent: LinkedAgent, message: AttemptLogMessage): void {
    const tracked = this.#heldBy(agent, message.ref);
    if (tracked?.log === undefined || tracked.ending) return;
    const stream = streamName(message.stream);
    const { end, stored } = tracked.log.stream(stream);
    if (end - stored > MAX_UNSTORED_BYTES) {
      throw new LinkProtocolError(
        `${end - stored} bytes of the log of ${tracked.id} came without waiting to be stored`,
      );
    }
    if (!tracked.log.append(stream, Number(message.offset), message.data)) {
      throw new LinkProtocolError(
        `log bytes from ${message.offset} came for ${tracked.id}, bytes from ${tracked.log.stream(stream).end} are missing`,
      );
    }
  }

  /** For work that nobody awaits: a defect in it must be seen, and must not end the process. */
  #watch(work: Promise<void>): void {
    work.catch((error: unknown) => this.#options.logger.error({ err: error }, 'an attempt could not be followed'));
  }

  async #result(agent: LinkedAgent, result: AttemptResult): Promise<void> {
    const { ref } = result;
    if (ref === undefined) return;
    const tracked = this.#held(agent, ref);
    if (tracked === undefined) {
      // Accepted before, or not wanted: the agent can forget it.
      this.#send(agent.id, { case: 'resultStored', value: { ref } });
      return;
    }
    if (tracked.ending) return;
    await this.#end(tracked, outcomeOfResult(result, tracked.resolved));
  }

  /**
   * The agent sends every byte before the result: one that names more has skipped some. Without its link it starts again
   * from what is stored.
   */
  #checkLog(tracked: TrackedExecution | undefined, result: AttemptResult): void {
    const { log } = tracked ?? {};
    if (log === undefined || tracked?.ending) return;
    const stdout = Number(result.stdoutBytes) - log.stdout.end;
    const stderr = Number(result.stderrBytes) - log.stderr.end;
    if (stdout <= 0 && stderr <= 0) return;
    throw new LinkProtocolError(
      `the result of ${result.ref?.executionId} came before ${Math.max(0, stdout) + Math.max(0, stderr)} bytes of its log`,
    );
  }

  async #rejected(agent: LinkedAgent, rejected: AttemptRejected): Promise<void> {
    const tracked = this.#heldBy(agent, rejected.ref);
    if (tracked === undefined || tracked.ending) return;
    const code = rejected.error?.code || Code.SUBMIT_FAILED;
    const message = rejected.error?.message ?? 'the agent did not take the assignment';
    if (rejected.requeue) await this.#requeue(tracked, code, message);
    else await this.#end(tracked, outcomeWithoutResult(code, message, { stdout: 0, stderr: 0 }));
  }

  async #lose(tracked: TrackedExecution, reason: string): Promise<void> {
    if (tracked.ending) return;
    const written = { stdout: tracked.log?.stdout.end ?? 0, stderr: tracked.log?.stderr.end ?? 0 };
    await this.#end(tracked, outcomeWithoutResult(Code.AGENT_LOST, reason, written));
  }

  /** Puts it back without counting a failure: nothing is wrong with it, and it did not start. */
  async #requeue(tracked: TrackedExecution, code: Code, message: string): Promise<void> {
    if (tracked.ending) return;
    tracked.requeues++;
    await this.#end(tracked, outcomeWithoutResult(code, message, { stdout: 0, stderr: 0 }), { requeue: true });
  }

  /** Ends an attempt: the execution is over, or waits for the next one. */
  async #end(tracked: TrackedExecution, outcome: AttemptOutcome, options: { requeue?: boolean } = {}): Promise<void> {
    tracked.ending = true;
    const { agentId, attempt } = tracked.current;
    this.#options.release(agentId);
    try {
      await tracked.log?.allStored(this.#stopping.signal);
      const again = await this.#tryAgain(tracked, outcome, options.requeue === true);
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
        failure: !requeue,
        backoffMs,
        pending: State.PENDING,
      }),
    );
    if (due === undefined) return false;
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
    const times = await this.#store(() => this.#options.finishes.add(row)).catch((error: unknown) => {
      if (!isRefused(error)) throw error;
      const bare = outcomeWithoutResult(Code.INTERNAL, `the result could not be stored: ${messageOf(error)}`, NOTHING);
      row = finishedRow(resolved, current.attempt, current.agentId, bare, undefined);
      return this.#options.finishes.add(row);
    });
    if (times === undefined) {
      // Another replica or a sweep ended it: what stands in the database is the truth.
      this.forget(tracked);
      tracked.changed.notify();
      return;
    }
    this.#conclude(tracked, row, times);
  }

  #conclude(tracked: TrackedExecution, row: FinishedExecution, times: FinishTimes): void {
    tracked.result = row;
    tracked.times.startTime = times.start_time ?? undefined;
    tracked.times.endTime = times.end_time;
    this.forget(tracked);
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

function streamName(stream: Stream): LogStreamName {
  if (stream === Stream.STDOUT) return Stream.STDOUT;
  if (stream === Stream.STDERR) return Stream.STDERR;
  throw new LinkProtocolError(`log stream ${stream} is not known`);
}

function asCancelled(outcome: AttemptOutcome, reason: string): AttemptOutcome {
  return {
    ...outcome,
    state: State.CANCELLED,
    outputJson: undefined,
    error: { code: Code.CANCELLED, message: storable(reason), details: undefined },
  };
}

function timesOf(row: ActiveRow): ExecutionTimes {
  return {
    createTime: row.create_time,
    queueTime: row.queue_time,
    assignTime: row.assign_time ?? undefined,
    startTime: undefined,
    endTime: undefined,
  };
}

function finishedRow(
  resolved: ResolvedExecution,
  attempt: number,
  agentId: string | null,
  outcome: AttemptOutcome,
  log: AttemptLog | undefined,
): FinishedExecution {
  return {
    id: resolved.id,
    tenant_id: resolved.tenantId,
    attempt,
    agent_id: agentId,
    state: outcome.state,
    output_json: outcome.outputJson ?? null,
    error_code: outcome.error?.code ?? null,
    error_message: outcome.error?.message ?? null,
    error_details: outcome.error?.details ?? null,
    exit_code: outcome.exitCode ?? null,
    stdout_tail: tailText(log?.stdout.tail(TAIL_BYTES)),
    stderr_tail: tailText(log?.stderr.tail(TAIL_BYTES)),
    stdout_bytes: outcome.stdoutBytes,
    stderr_bytes: outcome.stderrBytes,
    stdout_truncated: outcome.stdoutTruncated,
    stderr_truncated: outcome.stderrTruncated,
    cpu_ms: outcome.cpuMs ?? null,
    max_rss_bytes: outcome.maxRssBytes ?? null,
    prepare_ms: outcome.prepareMs ?? null,
    run_ms: outcome.runMs ?? null,
  };
}

function tailText(bytes: Uint8Array | undefined): string | null {
  return bytes === undefined || bytes.length === 0 ? null : storable(new TextDecoder().decode(bytes));
}
