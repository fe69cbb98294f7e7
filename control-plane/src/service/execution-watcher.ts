import { HarrierError, isFinal } from '@harrier/shared';
import { type Execution, Execution_State as State, LogChunk_Stream as Stream } from '@harrier/shared/gen/execution';
import type { WatcherBound } from '../admission/watcher-bound.ts';
import { readLogChunks } from '../db/queries/log-chunks.ts';
import {
  type ExecutionRow,
  type LogEnd,
  readExecution,
  readExecutionState,
  readLogEnd,
} from '../db/queries/read-executions.ts';
import type { Sql } from '../db/sql.ts';
import type { AttemptLog, LogStreamName } from './attempt-log.ts';
import type { BrakedAgents } from './braked-agents.ts';
import { executionMessage } from './execution-message.ts';
import type { ExecutionTracker } from './execution-tracker.ts';
import { type FollowedElsewhere, LOOK_MS, type ToldExecution } from './followed-elsewhere.ts';
import type { LogPiece } from './log-stream.ts';
import { nextChange } from './next-change.ts';
import type { ProgressReport, StateChange, TrackedExecution } from './tracked-execution.ts';
import { type Explain, waitingReasonOf } from './waiting-reason.ts';

/** Rows of the log in one read. */
const CHUNKS_A_READ = 16;
/** How often a watcher is told why an execution still waits, at most: only when the reason has changed. */
const WAITING_REASON_MS = 1_000;
/** How often it is looked whether the agent of a running execution is gone; the brake holds for minutes. */
const BRAKE_LOOK_MS = 2_000;
const STREAMS: readonly LogStreamName[] = [Stream.STDOUT, Stream.STDERR];

/** What a watcher is told. The result is the last. */
export type ExecutionEvent =
  /** `waitingReason` is empty but for what waits now, for an agent that takes it or for its own to come back. */
  | { kind: 'state'; change: StateChange; waitingReason: string }
  | { kind: 'log'; attempt: number; stream: LogStreamName; piece: LogPiece }
  | { kind: 'progress'; progress: ProgressReport }
  | { kind: 'result'; execution: Execution };

export interface LogPosition {
  attempt: number;
  stdout: number;
  stderr: number;
}

export interface WatchOptions {
  tenantId: string;
  id: string;
  /** First bytes wanted; attempt 0 is the current one. */
  from: LogPosition;
  /** Streams wanted. Default both. */
  streams?: readonly LogStreamName[];
  /** Whoever wants the result above all: bytes of the log that have been deleted are passed over. Default: it is an error. */
  passesOverDeleted?: boolean;
  signal: AbortSignal;
}

export interface ExecutionWatcherOptions {
  sql: Sql;
  tracker: ExecutionTracker;
  elsewhere: FollowedElsewhere;
  explain: Explain;
  braked: BrakedAgents;
  bound: WatcherBound;
  /** Why an execution waits that this replica does not follow. */
  waitingReason: (tenantId: string, row: ExecutionRow) => Promise<string>;
}

/**
 * Follows executions for readers. Each reader pulls at its own pace: log bytes from the memory of the attempt while it
 * runs, from the database where they have left memory, the same bytes either way.
 */
export class ExecutionWatcher {
  readonly #sql: Sql;
  readonly #tracker: ExecutionTracker;
  readonly #options: ExecutionWatcherOptions;

  constructor(options: ExecutionWatcherOptions) {
    this.#sql = options.sql;
    this.#tracker = options.tracker;
    this.#options = options;
  }

  /** A place for a reader that is about to follow; the answer gives it back. @throws HarrierError resource_exhausted */
  enter(tenantId: string): () => void {
    return this.#options.bound.enter(tenantId);
  }

  /**
   * States, log bytes and progress until the result.
   * @throws HarrierError invalid_argument; not_found, also when bytes of the log that are wanted have been deleted, unless
   * those are passed over
   */
  async *watch(options: WatchOptions): AsyncGenerator<ExecutionEvent> {
    const { tenantId, id, signal } = options;
    const cursor = { ...options.from };
    let shown: StateEvent | undefined;
    let progress: ProgressReport | undefined;
    let step = 0;
    let followed: TrackedExecution | undefined;
    while (true) {
      signal.throwIfAborted();
      // One that is not followed any more may have steps that were not shown.
      const rest = followed !== undefined && step < followed.history.length ? followed : undefined;
      const tracked = this.#tracker.get(id) ?? rest;
      if (tracked !== undefined && tracked.resolved.tenantId === tenantId && tracked.history.length > 0) {
        // After a time at another replica it is followed anew, with a history that begins there.
        if (tracked !== followed) step = shown === undefined ? tracked.history.length - 1 : 0;
        followed = tracked;
        // What is asked for before it is looked at cannot be missed.
        const isWaiting = tracked.current.state === State.PENDING;
        const wake = nextChange(tracked, signal, isWaiting ? WAITING_REASON_MS : BRAKE_LOOK_MS);
        // The reader may leave at any yield: then nobody awaits it.
        wake.catch(() => undefined);
        // The reason for which it waits may have changed alone.
        step = Math.min(step, tracked.history.length - 1);
        for (; step < tracked.history.length; step++) {
          const change = tracked.history[step] ?? tracked.current;
          yield* this.#logsBefore(options, cursor, change);
          const told = await this.#stateEvent(tracked, change);
          if (!isFinal(told.change.state) && !isSameEvent(told, shown)) yield told;
          shown = told;
        }
        // One moment for all of it: no byte is shown before the state in which it was written.
        const { current, log, finished, progress: reported } = tracked;
        const ends = { stdout: log?.stdout.end ?? 0, stderr: log?.stderr.end ?? 0 };
        if (cursor.attempt === 0) cursor.attempt = current.attempt;
        if (cursor.attempt > current.attempt && current.attempt > 0) throw noAttempt(id, cursor.attempt);
        yield* this.#earlierAttempts(options, cursor, current.attempt);
        if (log !== undefined && cursor.attempt === log.attempt) yield* this.#available(options, cursor, log, ends);
        if (reported !== undefined && reported !== progress) {
          progress = reported;
          yield { kind: 'progress', progress };
        }
        if (!finished && this.#tracker.get(id) === tracked) {
          await wake;
          continue;
        }
        // It ended, here or elsewhere: the database has the rest.
      }
      const row = await this.#state(tenantId, id);
      if (row.end_time !== null) {
        yield* this.#stored(options, cursor, row);
        const whole = (await readExecution(this.#sql, tenantId, id)) ?? notFound(id);
        yield { kind: 'result', execution: executionMessage(whole) };
        return;
      }
      if (this.#tracker.get(id) === undefined) {
        for await (const event of this.#watchElsewhere(options, cursor, shown)) {
          if (event.kind === 'state') shown = event;
          yield event;
        }
      }
    }
  }

  /** States, log bytes and progress of what another replica follows, until it is over or followed here. */
  async *#watchElsewhere(
    options: WatchOptions,
    cursor: LogPosition,
    before: StateEvent | undefined,
  ): AsyncGenerator<StateEvent | LogEvent | (ExecutionEvent & { kind: 'progress' })> {
    const { tenantId, id, signal } = options;
    let shown = before;
    let progress: ProgressReport | undefined;
    let step = 0;
    const told = this.#options.elsewhere.watch(tenantId, id);
    try {
      while (this.#tracker.get(id) === undefined) {
        // What is asked for before it is looked at cannot be missed.
        const wake = told.changed.wait(signal, LOOK_MS);
        // The reader may leave at any yield: then nobody awaits it.
        wake.catch(() => undefined);
        const row = await this.#state(tenantId, id);
        if (row.end_time !== null) return;
        const now = { state: row.state as State, attempt: row.attempt, agentId: row.agent_id ?? '' };
        // The database is told of running states a little later.
        for (const change of [...told.steps.slice(step), now]) {
          const order = shown === undefined ? 1 : orderOf(change) - orderOf(shown.change);
          if (isFinal(change.state) || order < 0 || (order === 0 && change !== now)) continue;
          const pendingReason = () => this.#options.waitingReason(tenantId, row);
          const waitingReason = change === now ? await this.#reason(change, pendingReason) : '';
          const event: StateEvent = { kind: 'state', change, waitingReason };
          yield* this.#logsBefore(options, cursor, change);
          if (!isSameEvent(event, shown)) yield event;
          shown = event;
        }
        step = told.steps.length;
        const { state, attempt } = shown?.change ?? now;
        if (cursor.attempt === 0) cursor.attempt = attempt;
        if (cursor.attempt > attempt && attempt > 0) throw noAttempt(id, cursor.attempt);
        yield* this.#earlierAttempts(options, cursor, attempt);
        // No byte is shown before the state in which it was written.
        if (cursor.attempt === attempt && state >= State.PREPARING) {
          yield* this.#fromDatabase(options, cursor);
        }
        if (told.progress !== undefined && told.progress !== progress) {
          progress = told.progress;
          yield { kind: 'progress', progress };
        }
        await wake;
      }
    } finally {
      this.#options.elsewhere.unwatch(id);
    }
  }

  /** Log bytes of one attempt: what there is, and with `follow` what comes until its end. Its errors are those of `watch`. */
  async *readLogs(options: WatchOptions & { follow: boolean }): AsyncGenerator<LogEvent> {
    let told: ToldExecution | undefined;
    const { elsewhere } = this.#options;
    try {
      yield* this.#readLogs(options, () => {
        told ??= elsewhere.watch(options.tenantId, options.id);
        return told;
      });
    } finally {
      if (told !== undefined) elsewhere.unwatch(options.id);
    }
  }

  /** @param watchElsewhere what another replica tells of the execution, watched from the first call on */
  async *#readLogs(
    options: WatchOptions & { follow: boolean },
    watchElsewhere: () => ToldExecution,
  ): AsyncGenerator<LogEvent> {
    const { tenantId, id, signal } = options;
    const cursor = { ...options.from };
    const row = await this.#state(tenantId, id);
    if (row.log_delete_time !== null) throw deleted(id, row.log_delete_time);
    if (cursor.attempt === 0) cursor.attempt = row.attempt;
    if (cursor.attempt > Math.max(1, row.attempt)) throw noAttempt(id, cursor.attempt);
    if (isOver(row, cursor.attempt)) {
      yield* this.#rest(options, cursor, row);
      return;
    }
    while (true) {
      signal.throwIfAborted();
      const tracked = this.#tracker.get(id);
      const log = tracked?.log;
      if (tracked !== undefined && log !== undefined && log.attempt === cursor.attempt) {
        const wake = nextChange(tracked, signal);
        // The reader may leave at any yield: then nobody awaits it.
        wake.catch(() => undefined);
        const ends = { stdout: log.stdout.end, stderr: log.stderr.end };
        yield* this.#available(options, cursor, log, ends);
        const over = tracked.finished || tracked.log !== log || tracked.current.agentId === '';
        if (!options.follow || over) {
          // What was in memory a moment ago may have left it: the database has it all.
          if (over) yield* this.#rest(options, cursor);
          return;
        }
        await wake;
        continue;
      }
      // What is asked for before it is looked at cannot be missed.
      const wake = options.follow && tracked === undefined ? watchElsewhere().changed.wait(signal, LOOK_MS) : undefined;
      wake?.catch(() => undefined);
      yield* this.#fromDatabase(options, cursor);
      if (!options.follow) return;
      const now = await this.#state(tenantId, id);
      if (cursor.attempt === 0) cursor.attempt = now.attempt;
      if (isOver(now, cursor.attempt)) {
        yield* this.#rest(options, cursor, now);
        return;
      }
      if (cursor.attempt === 0) cursor.attempt = now.attempt;
      const followed = this.#tracker.get(id);
      if (followed !== undefined && followed.log?.attempt !== cursor.attempt) {
        await followed.changed.wait(signal, LOOK_MS);
      } else if (followed === undefined) await wake;
      if (cursor.attempt === 0) cursor.attempt = followed?.current.attempt ?? 0;
    }
  }

  async #stateEvent(tracked: TrackedExecution, change: StateChange): Promise<StateEvent> {
    const pendingReason = () => waitingReasonOf(tracked, this.#options.explain);
    if (change !== tracked.current) return { kind: 'state', change, waitingReason: '' };
    const waitingReason = tracked.endRefused ?? (await this.#reason(change, pendingReason));
    return { kind: 'state', change, waitingReason };
  }

  async #reason({ state, agentId }: StateChange, pendingReason: () => Promise<string>): Promise<string> {
    if (state === State.PENDING) return await pendingReason();
    return isFinal(state) ? '' : await this.#options.braked.reason(agentId);
  }

  /** Bytes of a running attempt that are there, from where the cursor stands to about `ends`. */
  async *#available(
    options: WatchOptions,
    cursor: LogPosition,
    log: AttemptLog,
    ends: StreamEnds,
  ): AsyncGenerator<LogEvent> {
    for (const stream of options.streams ?? STREAMS) {
      const key = keyOf(stream);
      while (cursor[key] < ends[key]) {
        const piece = log.stream(stream).read(cursor[key]);
        if (piece === undefined) {
          const before = cursor[key];
          const one = { ...options, streams: [stream] };
          const { start } = log.stream(stream);
          yield* this.#fromDatabase(one, cursor, { ...ENDLESS, [key]: start });
          if (cursor[key] > before) continue;
          // What has left memory was stored. The end tells of what was deleted since.
          yield* this.#rest(one, cursor);
          if (cursor[key] === before) throw missing(options.id, before, start);
          continue;
        }
        cursor[key] += piece.data.length;
        yield { kind: 'log', attempt: log.attempt, stream, piece };
      }
    }
  }

  /**
   * What is stored of the cursor's attempt without a gap, of each stream up to `until`. A row may be stored before the one in
   * front of it, or without it when a control plane ends: what is behind a gap is not of the log yet, or never will be.
   */
  async *#fromDatabase(options: WatchOptions, cursor: LogPosition, until = ENDLESS): AsyncGenerator<LogEvent> {
    const { tenantId, id: executionId, signal } = options;
    for (const stream of options.streams ?? STREAMS) {
      const key = keyOf(stream);
      while (cursor[key] < until[key]) {
        signal.throwIfAborted();
        const range = { tenantId, executionId, attempt: cursor.attempt, stream };
        const chunks = await readLogChunks(this.#sql, range, cursor[key], CHUNKS_A_READ);
        const before = cursor[key];
        for (const { offset, data } of chunks) {
          if (offset > cursor[key]) break;
          const rest = data.subarray(cursor[key] - offset, Math.max(0, until[key] - offset));
          if (rest.length === 0) continue;
          const piece = { offset: cursor[key], data: rest };
          cursor[key] += rest.length;
          yield { kind: 'log', attempt: cursor.attempt, stream, piece };
        }
        if (cursor[key] === before) break;
      }
    }
  }

  /** What was written before a step: a reader who lags behind several attempts sees each with its output. */
  async *#logsBefore(options: WatchOptions, cursor: LogPosition, { attempt }: StateChange): AsyncGenerator<LogEvent> {
    if (cursor.attempt === 0) cursor.attempt = attempt;
    yield* this.#earlierAttempts(options, cursor, attempt);
  }

  /** The rest of attempts that were followed by another one; moves the cursor to the beginning of `attempt`. */
  async *#earlierAttempts(options: WatchOptions, cursor: LogPosition, attempt: number): AsyncGenerator<LogEvent> {
    while (cursor.attempt !== 0 && cursor.attempt < attempt) {
      yield* this.#rest(options, cursor);
      cursor.attempt++;
      cursor.stdout = 0;
      cursor.stderr = 0;
    }
  }

  /** The rest of the log of an execution that is over. */
  async *#stored(options: WatchOptions, cursor: LogPosition, row: ExecutionRow): AsyncGenerator<LogEvent> {
    if (cursor.attempt === 0) cursor.attempt = row.attempt;
    if (cursor.attempt > Math.max(1, row.attempt)) throw noAttempt(row.id, cursor.attempt);
    yield* this.#earlierAttempts(options, cursor, row.attempt);
    yield* this.#rest(options, cursor, row);
  }

  /**
   * The rest of the log of the cursor's attempt, which is over: all of it up to the end that was recorded, or an error. "No more
   * rows" is not that end: they may be deleted between two reads.
   * @param row the execution as it was read before; absent: it is read when it is needed
   */
  async *#rest(options: WatchOptions, cursor: LogPosition, row?: ExecutionRow): AsyncGenerator<LogEvent> {
    const { tenantId, id, streams = STREAMS } = options;
    const shortOf = (end: RecordedBytes) =>
      streams
        .map((stream) => ({ key: keyOf(stream), from: cursor[keyOf(stream)], to: end[`${keyOf(stream)}_bytes`] ?? 0 }))
        .filter(({ from, to }) => from < to);
    // What was put back may have a longer log than the row tells.
    const isTold = row?.attempt === cursor.attempt && row.agent_id !== null;
    const recorded = isTold ? row : await readLogEnd(this.#sql, tenantId, id, cursor.attempt);
    yield* this.#fromDatabase(options, cursor, recorded === undefined ? ENDLESS : endsOf(recorded));
    if (recorded !== undefined && shortOf(recorded).length === 0) return;
    const end = await readLogEnd(this.#sql, tenantId, id, cursor.attempt);
    // It is gone with its execution, or has never begun.
    if (end === undefined) {
      await this.#state(tenantId, id);
      return;
    }
    for (const { key, from, to } of shortOf(end)) {
      if (end.log_delete_time === null) throw missing(id, from, to);
      if (options.passesOverDeleted !== true) throw deleted(id, end.log_delete_time);
      cursor[key] = to;
    }
  }

  async #state(tenantId: string, id: string): Promise<ExecutionRow> {
    return (await readExecutionState(this.#sql, tenantId, id)) ?? notFound(id);
  }
}

type StreamEnds = Pick<LogPosition, 'stdout' | 'stderr'>;
type RecordedBytes = Pick<LogEnd, 'stdout_bytes' | 'stderr_bytes'>;

const ENDLESS: StreamEnds = { stdout: Number.POSITIVE_INFINITY, stderr: Number.POSITIVE_INFINITY };

/** Where the log of an attempt that is over ends. */
function endsOf({ stdout_bytes: stdout, stderr_bytes: stderr }: RecordedBytes): StreamEnds {
  return { stdout: stdout ?? ENDLESS.stdout, stderr: stderr ?? ENDLESS.stderr };
}

/** Whether the attempt is over. */
function isOver(row: ExecutionRow, attempt: number): boolean {
  return row.end_time !== null || row.attempt > attempt;
}

function deleted(id: string, at: Date): HarrierError {
  const message = `the log of ${id} was deleted at ${at.toISOString()}, as old as logs are kept here`;
  return new HarrierError('not_found', message, { field: 'id' });
}

function missing(id: string, from: number, to: number): HarrierError {
  return new HarrierError('internal', `bytes ${from} to ${to} of the log of ${id} are missing`);
}

function notFound(id: string): never {
  throw new HarrierError('not_found', `there is no execution ${id}`, { field: 'id' });
}

type LogEvent = ExecutionEvent & { kind: 'log' };
type StateEvent = ExecutionEvent & { kind: 'state' };

function isSameEvent(a: StateEvent, b: StateEvent | undefined): boolean {
  if (b === undefined || a.waitingReason !== b.waitingReason) return false;
  return (
    a.change.state === b.change.state && a.change.attempt === b.change.attempt && a.change.agentId === b.change.agentId
  );
}

/** Later steps of an execution have greater numbers; between two attempts it is PENDING with the number of the first. */
function orderOf({ state, attempt }: StateChange): number {
  return attempt * 16 + (state === State.PENDING ? 15 : state);
}

function keyOf(stream: LogStreamName): 'stdout' | 'stderr' {
  return stream === Stream.STDOUT ? 'stdout' : 'stderr';
}

function noAttempt(id: string, attempt: number): HarrierError {
  return new HarrierError('invalid_argument', `execution ${id} has no attempt ${attempt} yet`, { field: 'attempt' });
}
