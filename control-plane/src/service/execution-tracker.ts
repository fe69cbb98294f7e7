import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { isFinal, LinkProtocolError, messageOf } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State, LogChunk_Stream as Stream } from '@harrier/shared/gen/execution';
import type {
  AgentMessage,
  AttemptLog as AttemptLogMessage,
  AttemptRef,
  AttemptRejected,
  AttemptResult,
  Hello,
  LockFound,
} from '@harrier/shared/gen/link';
import { Goodbye_Code as GoodbyeCode, ServerMessageSchema } from '@harrier/shared/gen/link';
import type { LinkedAgent } from '../agent-link/agent-registry.ts';
import type { LinkedAnswer } from '../agent-link/agent-session.ts';
import type { SlotUse } from '../agent-link/agent-slots.ts';
import { type Reservation, readReservation } from '../agent-link/reservation.ts';
import type { GroupCommit } from '../db/group-commit.ts';
import { type NewLogChunk, storedLogBytes } from '../db/queries/log-chunks.ts';
import {
  type ActiveRow,
  isActiveAttempt,
  listActiveOfAgent,
  listActiveOfLostAgent,
  listActiveOfReplica,
} from '../db/queries/read-executions.ts';
import { type Requirement, slotUse } from '../scheduler/requirement.ts';
import { AttemptEndings, type AttemptEndingsOptions, requeueDelayMs } from './attempt-endings.ts';
import { AttemptLog, type LogStreamName } from './attempt-log.ts';
import { outcomeOfResult, outcomeWithoutResult } from './attempt-outcome.ts';
import { durationOf, millisecondsOf } from './duration.ts';
import { reconcileAttempts } from './reconcile-rules.ts';
import { assignmentMessage, type ResolvedExecution } from './resolved-execution.ts';
import { StateWriter } from './state-writer.ts';
import { StoreRetries } from './store-retries.ts';
import { type ExecutionTimes, TrackedExecution } from './tracked-execution.ts';

/** Time between asking a cancelled attempt to stop and killing it. */
const CANCEL_GRACE_MS = 5_000;
/** An agent sends at most 1 MiB of an attempt that is not stored; what is far beyond is not the protocol. */
const MAX_UNSTORED_BYTES = 4 * 1024 * 1024;
/** An agent without room for an environment is asked again so long after the others: it may have come by some. */
const ASK_FOR_ROOM_AGAIN_MS = 30_000;
/** One that was full, or has no device node for a card, likewise: that may be over at once. */
const ASK_AGAIN_MS = 1_000;
/** Between the commit of a claim and its answer. */
const CANCEL_KEPT_MS = 60_000;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

type ServerMessageBody = NonNullable<MessageInitShape<typeof ServerMessageSchema>['message']>;

/** A claim that was committed but never sent, because the control plane failed in between, is older than this. */
const UNFOLLOWED_AFTER_MS = 15_000;

export interface ExecutionTrackerOptions extends Omit<AttemptEndingsOptions, 'forget' | 'retries'> {
  logs: GroupCommit<NewLogChunk, void>;
  /**
   * The lock to install for an execution whose agent has found one: the first that was found for its module version and the
   * agent's platform.
   */
  decideLock: (resolved: ResolvedExecution, lock: string, platform: string) => Promise<string>;
  /** Why no agent can take an execution any more; undefined when one can. It goes by the refusals that the requirement names. */
  whyNobody: (requirement: Requirement) => string | undefined;
  /** Rebuilds what a stored row asks for. */
  resolveRow: (row: ActiveRow) => Promise<ResolvedExecution>;
  /** An execution is followed from now on. */
  onTracked: (tracked: TrackedExecution) => void;
  /** Attempts ended without a word of their agent: other replicas may follow the executions. */
  onTaken: (ids: string[]) => void;
}

/** An attempt that the database gives to an agent. */
export interface GivenAttempt {
  agentId: string;
  /** What it takes of the agent. */
  reservation: Reservation;
  attempt: number;
  assignTime: Date;
  /** Attempts that failed before it. */
  failures: number;
}

/**
 * Follows the executions that this replica has accepted or whose agents are linked to it, from assignment to result. It
 * holds nothing that the database and the agents could not tell again.
 */
export class ExecutionTracker {
  readonly #options: ExecutionTrackerOptions;
  readonly #tracked = new Map<string, TrackedExecution>();
  /** Cancels of what was not followed when they came. */
  readonly #cancels = new Map<string, string>();
  /** Attempts of which the database is being asked whether their agents may be told that they are not theirs. */
  readonly #disowning = new Set<string>();
  /** Agents whose attempts are being ended because they are lost; settled when that is over. */
  readonly #losing = new Map<string, Promise<unknown>>();
  readonly #states: StateWriter;
  readonly #retries: StoreRetries;
  readonly #endings: AttemptEndings;

  constructor(options: ExecutionTrackerOptions) {
    this.#options = options;
    this.#states = new StateWriter(options.sql, options.logger);
    this.#retries = new StoreRetries(options.logger);
    const forget = (tracked: TrackedExecution) => this.forget(tracked);
    this.#endings = new AttemptEndings({ ...options, retries: this.#retries, forget });
  }

  get(id: string): TrackedExecution | undefined {
    return this.#tracked.get(id);
  }

  /** Everything that is followed; what comes or goes meanwhile may or may not be among it. */
  all(): Iterator<TrackedExecution> {
    return this.#tracked.values();
  }

  /** Begins to follow an execution. */
  track(resolved: ResolvedExecution, times: ExecutionTimes, failures: number): TrackedExecution {
    const tracked = new TrackedExecution(resolved, times, failures);
    this.#tracked.set(resolved.id, tracked);
    this.#options.onTracked(tracked);
    return tracked;
  }

  forget(tracked: TrackedExecution): void {
    if (this.#tracked.get(tracked.id) === tracked) this.#tracked.delete(tracked.id);
  }

  /** Another replica follows it, or it ended elsewhere: whoever waits for it looks there. */
  release(tracked: TrackedExecution): void {
    this.forget(tracked);
    tracked.log?.close();
    tracked.changed.notify();
  }

  /** The agent is linked to another replica, which follows its attempts from now on. */
  agentMoved(agentId: string): void {
    for (const tracked of this.#tracked.values()) {
      // How an attempt ended is stored by whoever was told.
      if (tracked.current.agentId === agentId && !tracked.ending) this.release(tracked);
    }
  }

  /** What is not stored yet stays with the agents. */
  stop(): void {
    this.#states.stop();
    this.#retries.stop();
  }

  /** The database says that the attempt is the agent's: tells the agent. */
  assign(known: TrackedExecution, { agentId, reservation, attempt, assignTime, failures }: GivenAttempt): void {
    // The agent may have been linked anew since the claim: then its attempts were looked at already.
    if (attempt <= known.current.attempt) return;
    const tracked = known.ending ? this.#supersede(known, known.resolved, { ...known.times }, failures) : known;
    tracked.reservation = reservation;
    tracked.cancelReason ??= this.#cancels.get(tracked.id);
    tracked.times.assignTime = assignTime;
    tracked.nextAttemptTime = undefined;
    tracked.progress = undefined;
    tracked.log?.close();
    tracked.log = this.#openLog(tracked.resolved, attempt, { stdout: 0, stderr: 0 });
    tracked.move({ state: State.ASSIGNED, attempt, agentId });
    const { registry } = this.#options;
    registry.holdSlot(agentId, tracked.id, useOf(tracked));
    const cpuMilli = registry.get(agentId)?.capacity?.cpuMilli;
    if (!registry.send(agentId, assignmentMessage(tracked.resolved, attempt, reservation.gpuUuids, cpuMilli))) {
      this.#watch(this.#endings.requeue(tracked, Code.SUBMIT_FAILED, 'the agent was gone before it could be told'));
    } else if (tracked.cancelReason !== undefined) this.#sendCancel(tracked);
  }

  /**
   * The attempt before is over, since the database has given out another one; only the answer that says so has not come. It is
   * followed anew, and whoever waits for the answer ends what nobody looks at any more.
   */
  #supersede(
    ended: TrackedExecution,
    resolved: ResolvedExecution,
    times: ExecutionTimes,
    failures: number,
  ): TrackedExecution {
    const next = this.track(resolved, times, failures);
    next.requeues = ended.requeues;
    next.cancelReason = ended.cancelReason;
    ended.log?.close();
    ended.changed.notify();
    return next;
  }

  /**
   * A caller wants something to stop that is not followed here; the database knows. It may be about to be: a claim that was
   * committed before the cancel is told after it.
   */
  rememberCancel(id: string, reason: string): void {
    this.#cancels.set(id, reason);
    setTimeout(() => this.#cancels.delete(id), CANCEL_KEPT_MS).unref();
  }

  /** A caller wants it to stop; the database knows. */
  requestCancel(tracked: TrackedExecution, reason: string): void {
    tracked.cancelReason ??= reason;
    this.#sendCancel(tracked);
  }

  /** It was cancelled while it waited; the database knows. */
  cancelledWhileWaiting(tracked: TrackedExecution, reason: string): void {
    this.#endings.cancelledWhileWaiting(tracked, reason);
  }

  /** It waits for what no agent can do. */
  async refuse(tracked: TrackedExecution, message: string, details: object): Promise<void> {
    await this.#endings.refuse(tracked, message, details);
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
      case 'lockFound':
        this.#watch(this.#decideLock(agent, message.value));
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
  async reconcile(agent: LinkedAgent, hello: Hello, sameProcess: boolean): Promise<LinkedAnswer> {
    const cancelled: TrackedExecution[] = [];
    const afterWelcome = () => {
      for (const tracked of cancelled) this.#sendCancel(tracked);
    };
    const answer: LinkedAnswer = { resume: [], drop: [], afterWelcome };
    const refs = hello.held.map(({ ref }) => {
      if (ref === undefined) throw new LinkProtocolError('a held attempt has no name');
      return ref;
    });
    // Since the database has the link they end nothing any more, and what they have ended is not the agent's.
    await this.#losing.get(agent.id);
    this.#options.registry.forgetHeldSlots(agent.id);
    const active = await listActiveOfAgent(this.#options.sql, agent.id);
    const launcherAgeMs = hello.launcherAge === undefined ? undefined : millisecondsOf(hello.launcherAge);
    const { resume, again, lost, drop } = reconcileAttempts(active, refs, { sameProcess, launcherAgeMs });
    answer.drop.push(...drop);
    for (const row of resume) {
      const tracked = await this.#adopt(row, agent.id);
      // One whose result is being stored has given its slot back already.
      if (!tracked.ending) this.#options.registry.holdSlot(agent.id, row.id, useOf(tracked));
      answer.resume.push({
        executionId: row.id,
        attempt: row.attempt,
        stdoutOffset: BigInt(tracked.log?.stdout.stored ?? 0),
        stderrOffset: BigInt(tracked.log?.stderr.stored ?? 0),
      });
      if (tracked.cancelReason !== undefined) cancelled.push(tracked);
    }
    const endings: Promise<void>[] = [];
    for (const row of again) {
      const tracked = await this.#adopt(row, agent.id);
      endings.push(
        this.#endings.requeue(
          tracked,
          Code.SUBMIT_FAILED,
          'the attempt had not started when its agent was linked anew',
        ),
      );
    }
    for (const row of lost) {
      const tracked = await this.#adopt(row, agent.id);
      endings.push(this.#endings.lose(tracked, `agent ${agent.name} was started anew without this attempt`));
    }
    await Promise.all(endings);
    return answer;
  }

  /** Puts back what the database gives to an agent that is linked here, but that was never told: a failure came in between. */
  async sweepUnfollowed(): Promise<void> {
    const { sql, registry, replicaId, logger } = this.#options;
    const unfollowed = new Map<string, Set<string>>();
    for (const { id, attempt, agent_id: agentId } of await listActiveOfReplica(sql, replicaId, UNFOLLOWED_AFTER_MS)) {
      if (this.#follows(id, agentId, attempt)) continue;
      unfollowed.set(agentId, (unfollowed.get(agentId) ?? new Set()).add(id));
    }
    for (const [agentId, ids] of unfollowed) {
      for (const row of await listActiveOfAgent(sql, agentId)) {
        // It may have been linked, moved or ended since.
        if (!ids.has(row.id) || this.#follows(row.id, agentId, row.attempt)) continue;
        if (registry.get(agentId) === undefined) continue;
        const stale = this.#tracked.get(row.id);
        if (stale !== undefined && stale.current.attempt > row.attempt) continue;
        if (stale !== undefined) this.release(stale);
        logger.warn({ executionId: row.id, agentId }, 'an attempt was not followed; putting it back');
        const tracked = await this.#adopt(row, agentId);
        await this.#endings.requeue(tracked, Code.SUBMIT_FAILED, 'the assignment was not sent');
      }
    }
  }

  #follows(id: string, agentId: string, attempt: number): boolean {
    // One that is ending is held until its end is stored.
    return this.#tracked.get(id)?.isHeldBy(agentId, attempt) ?? false;
  }

  /**
   * An agent has no lease, or was deleted: its attempts are over, but for those that may run on without it. Nothing is ended once
   * it has a lease (again).
   * @param leftMs for how long an attempt may run on; default: for none
   * @returns how long the first of the others may run on; undefined when there are none
   */
  async agentLost(
    agentId: string,
    reason: string,
    leftMs: (attempt: ResolvedExecution) => number = () => 0,
  ): Promise<number | undefined> {
    const ended = this.#endLost(agentId, reason, leftMs);
    const over = Promise.allSettled([this.#losing.get(agentId), ended]);
    this.#losing.set(agentId, over);
    try {
      return await ended;
    } finally {
      if (this.#losing.get(agentId) === over) this.#losing.delete(agentId);
    }
  }

  async #endLost(
    agentId: string,
    reason: string,
    leftMs: (attempt: ResolvedExecution) => number,
  ): Promise<number | undefined> {
    let firstMs: number | undefined;
    const endings: Promise<void>[] = [];
    const taken: string[] = [];
    for (const row of await listActiveOfLostAgent(this.#options.sql, agentId)) {
      const ms = leftMs(await this.#options.resolveRow(row));
      if (ms > 0) firstMs = Math.min(ms, firstMs ?? ms);
      else {
        const tracked = await this.#adopt(row, agentId);
        // By whoever was told first; the others know.
        if (tracked.ending) continue;
        taken.push(row.id);
        endings.push(this.#endings.loseLeaseless(tracked, reason));
      }
    }
    await Promise.all(endings);
    if (taken.length > 0) this.#options.onTaken(taken);
    return firstMs;
  }

  /** Follows an attempt that the database gives to an agent; what memory has of it already stays. */
  async #adopt(row: ActiveRow, agentId: string): Promise<TrackedExecution> {
    const held = this.#heldAs(row, agentId);
    if (held !== undefined) return held;
    const resolved = await this.#options.resolveRow(row);
    const stored = {
      stdout: await this.#storedBytes(row, Stream.STDOUT),
      stderr: await this.#storedBytes(row, Stream.STDERR),
    };
    // Its attempt before may have begun to end meanwhile, and what ends is the end of that attempt alone.
    const heldByNow = this.#heldAs(row, agentId);
    if (heldByNow !== undefined) return heldByNow;
    const tracked = this.#anew(resolved, row);
    tracked.reservation = readReservation(row.reservation);
    tracked.cancelReason = row.cancel_reason ?? undefined;
    tracked.log = this.#openLog(resolved, row.attempt, stored);
    tracked.history.push({ state: row.state as State, attempt: row.attempt, agentId });
    tracked.changed.notify();
    return tracked;
  }

  /** What is followed of a row's attempt already; with the cancel that the row tells of. */
  #heldAs(row: ActiveRow, agentId: string): TrackedExecution | undefined {
    const known = this.#tracked.get(row.id);
    if (known?.isHeldBy(agentId, row.attempt) !== true) return undefined;
    known.cancelReason ??= row.cancel_reason ?? undefined;
    return known;
  }

  /** What is to follow a row's attempt, which is not followed yet. */
  #anew(resolved: ResolvedExecution, row: ActiveRow): TrackedExecution {
    const known = this.#tracked.get(row.id);
    if (known === undefined) return this.track(resolved, timesOf(row), row.failures);
    // The row was read before its next attempt began: that one keeps its place, and what is stored of this one is fenced.
    if (known.current.attempt > row.attempt) return new TrackedExecution(resolved, timesOf(row), row.failures);
    return known.ending ? this.#supersede(known, resolved, timesOf(row), row.failures) : known;
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
      retries: this.#retries,
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

  #send(agentId: string, message: ServerMessageBody): void {
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
    this.#disown(agent, ref, { case: 'drop', value: { ref, reason: 'the attempt is not this agent’s any more' } });
    return undefined;
  }

  /**
   * Memory does not know the attempt as this agent's. It is told so only if the database says the same: otherwise its link is
   * ended, and the next one finds what became of its attempts.
   */
  #disown(agent: LinkedAgent, ref: AttemptRef, message: ServerMessageBody): void {
    const key = `${agent.id} ${ref.executionId} ${ref.attempt}`;
    if (this.#disowning.has(key)) return;
    if (!UUID.test(ref.executionId)) throw new LinkProtocolError(`${JSON.stringify(ref.executionId)} is no execution`);
    this.#disowning.add(key);
    const decided = isActiveAttempt(this.#options.sql, ref.executionId, ref.attempt, agent.id)
      // Without the database nobody knows.
      .catch(() => true)
      .then((isActive) => {
        if (isActive) agent.channel.close(GoodbyeCode.SHUTDOWN, 'the attempts of this agent are to be told anew');
        else this.#send(agent.id, message);
      })
      .finally(() => this.#disowning.delete(key));
    this.#watch(decided);
  }

  async #decideLock(agent: LinkedAgent, { ref, lock: found, platform }: LockFound): Promise<void> {
    const tracked = this.#heldBy(agent, ref);
    if (tracked === undefined || ref === undefined) return;
    let lock = found;
    try {
      lock = await this.#options.decideLock(tracked.resolved, found, platform);
    } catch (error) {
      // Without the database the attempt goes on with what its agent has found; the next one decides.
      this.#options.logger.warn({ executionId: tracked.id, reason: messageOf(error) }, 'a lock could not be stored');
    }
    this.#send(agent.id, { case: 'lockDecided', value: { ref, lock } });
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
      this.#disown(agent, ref, { case: 'resultStored', value: { ref } });
      return;
    }
    if (tracked.ending) return;
    await this.#endings.end(tracked, outcomeOfResult(result, tracked.resolved));
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
    if (!rejected.requeue) {
      return await this.#endings.end(tracked, outcomeWithoutResult(code, message, { stdout: 0, stderr: 0 }));
    }
    const noRoom = code === Code.ENVIRONMENT_FAILED;
    this.#refused(tracked, agent.id, message, noRoom);
    const nobody = noRoom ? this.#nobodyHasRoom(tracked) : undefined;
    if (nobody === undefined) await this.#endings.requeue(tracked, code, message);
    else await this.#endings.end(tracked, outcomeWithoutResult(code, nobody, { stdout: 0, stderr: 0 }));
  }

  /**
   * The others are asked first when it is due again. Without that, the agent that refuses would be chosen again and again, since it
   * stays idle, and an execution would wait beside agents that could run it.
   */
  #refused(tracked: TrackedExecution, agentId: string, reason: string, noRoom: boolean): void {
    const { id, resolved, requeues } = tracked;
    const pauseMs = requeueDelayMs(requeues + 1);
    // The longer it goes on, the longer; so that others always have as much time as it was not due.
    const forMs = pauseMs + (noRoom ? ASK_FOR_ROOM_AGAIN_MS : Math.max(ASK_AGAIN_MS, pauseMs));
    resolved.refusals.add({ agentId, reason, noRoom, forMs }, () => {
      if (this.#tracked.get(id)?.current.state === State.PENDING) this.#options.queued();
    });
  }

  /** Why no agent has room for its environment. What else they have sent it back for passes. */
  #nobodyHasRoom({ resolved: { requirement, refusals } }: TrackedExecution): string | undefined {
    return this.#options.whyNobody({ ...requirement, refusals: refusals.withoutRoom });
  }
}

function streamName(stream: Stream): LogStreamName {
  if (stream === Stream.STDOUT) return Stream.STDOUT;
  if (stream === Stream.STDERR) return Stream.STDERR;
  throw new LinkProtocolError(`log stream ${stream} is not known`);
}

/** Counted from now: it may have begun before, but it is not over later than that. */
function useOf({ resolved, reservation }: TrackedExecution): SlotUse {
  return slotUse(resolved.requirement, reservation, performance.now());
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
