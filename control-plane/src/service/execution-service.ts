import { create } from '@bufbuild/protobuf';
import { timestampDate, timestampFromDate } from '@bufbuild/protobuf/wkt';
import { failpoint, HarrierError, isFinal, matchesLabels, parseLabelSelector } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import {
  type Execution,
  type ListExecutionsRequest,
  Execution_State as State,
  WaitingConstraintSchema,
} from '@harrier/shared/gen/execution';
import type { Admission } from '../admission/admission.ts';
import type { AgentRegistry } from '../agent-link/agent-registry.ts';
import { storedReservation } from '../agent-link/reservation.ts';
import type { GroupCommit } from '../db/group-commit.ts';
import { cancelExecution } from '../db/queries/cancel-execution.ts';
import type { NewExecution } from '../db/queries/insert-executions.ts';
import {
  type ActiveRow,
  type AttemptRow,
  type ExecutionRow,
  findExecutionByKey,
  listAttempts,
  listExecutions,
  readExecution,
  readExecutionState,
} from '../db/queries/read-executions.ts';
import type { Sql } from '../db/sql.ts';
import { uuidv7 } from '../db/uuid.ts';
import { laneShape, type Requirement } from '../scheduler/requirement.ts';
import type { Placement, Scheduler } from '../scheduler/scheduler.ts';
import type { BrakedAgents } from './braked-agents.ts';
import { ChangeSignal } from './change-signal.ts';
import { whyNoneCan } from './eligibility.ts';
import { attemptMessage, executionMessage, rowOfTracked } from './execution-message.ts';
import {
  checkAssignmentSize,
  checkedInput,
  checkTexts,
  type ExecutionRequest,
  storedRequest,
} from './execution-request.ts';
import type { ExecutionTracker } from './execution-tracker.ts';
import { type FollowedElsewhere, LOOK_MS } from './followed-elsewhere.ts';
import type { ModuleService, StoredModule } from './module-service.ts';
import { decodePageToken, encodePageToken, pageSizeOf, UUID_SHAPE } from './page-token.ts';
import {
  checkExecution,
  decodeRequest,
  encodeRequest,
  type ResolvedExecution,
  resolveExecution,
} from './resolved-execution.ts';
import { refuseNul, storable } from './storable.ts';
import { DEFAULT_TASK_CLASS, findTaskClass, type TaskClasses } from './task-class.ts';
import type { TrackedExecution } from './tracked-execution.ts';
import type { Waiting } from './waiting.ts';
import { dueReason, type Explain } from './waiting-reason.ts';
import { untilDatabaseAnswers } from './while-away.ts';

/** Rows that one page of a label-filtered list looks at, at most. */
const LABEL_SCAN_ROWS = 10_000;

export interface ExecutionServiceOptions {
  sql: Sql;
  admission: Admission;
  inserts: GroupCommit<NewExecution, Date | undefined>;
  modules: ModuleService;
  classes: TaskClasses;
  registry: AgentRegistry;
  scheduler: Scheduler;
  tracker: ExecutionTracker;
  elsewhere: FollowedElsewhere;
  /** This replica. */
  replicaId: string;
  explain: Explain;
  waiting: Pick<Waiting, 'constraints'>;
  braked: BrakedAgents;
  /** Whether another replica has said that it claimed the execution, before this one knew that it was accepted. */
  isClaimedElsewhere: (id: string) => boolean;
  /** It was asked to cancel an execution that another replica may follow. */
  cancelElsewhere: (id: string, outcome: 'ended' | 'requested') => void;
}

/** Accepts, shows, lists and cancels executions. */
export class ExecutionService {
  readonly #options: ExecutionServiceOptions;
  /** Callers who wait for an end. */
  #waiting = 0;
  readonly #answered = new ChangeSignal();

  constructor(options: ExecutionServiceOptions) {
    this.#options = options;
  }

  /**
   * Accepts an execution: when this resolves it is committed.
   * @param traceParent place of the call in a trace, if the request does not say another one; what is none counts as none
   * @returns its id, and its record when this replica follows it.
   * @throws HarrierError invalid_argument, not_found, resource_exhausted; nothing was written then.
   */
  async accept(
    tenantId: string,
    request: ExecutionRequest,
    traceParent: string,
  ): Promise<{ id: string; tracked: TrackedExecution | undefined }> {
    const { admission } = this.#options;
    admission.admit(tenantId);
    const { resolved, encoded } = await this.#checked(tenantId, request, traceParent);
    const { scheduler, tracker } = this.#options;
    const placed = scheduler.reserve(resolved.requirement, resolved.id);
    const agentId = placed?.agentId;
    if (agentId === undefined) admission.admitToQueue(tenantId);
    let createTime: Date | undefined;
    try {
      failpoint('accept-before-commit');
      const row = newRow(resolved, encoded.toString('base64'), placed, this.#options.replicaId);
      // Its id makes it the same one, however often it is written.
      createTime = await untilDatabaseAnswers(() => this.#options.inserts.add(row));
      failpoint('accept-committed');
    } catch (error) {
      if (agentId !== undefined) scheduler.release(agentId, resolved.id);
      throw error;
    }
    if (createTime === undefined && request.idempotencyKey !== '') {
      const before = await untilDatabaseAnswers(() => this.#acceptedBefore(tenantId, request.idempotencyKey)).catch(
        (error: unknown) => {
          if (agentId !== undefined) scheduler.release(agentId, resolved.id);
          throw error;
        },
      );
      if (before.id !== resolved.id) {
        if (agentId !== undefined) scheduler.release(agentId, resolved.id);
        return before;
      }
    }
    // Its own id was there: an earlier try was committed after all.
    createTime ??= new Date();
    const times = {
      createTime,
      queueTime: createTime,
      assignTime: undefined,
      startTime: undefined,
      endTime: undefined,
    };
    if (agentId === undefined && this.#options.isClaimedElsewhere(resolved.id)) {
      return { id: resolved.id, tracked: undefined };
    }
    // A claim of the queue may have come first.
    const tracked = tracker.get(resolved.id) ?? tracker.track(resolved, times, 0);
    if (placed !== undefined) {
      tracker.assign(tracked, { ...placed, attempt: 1, assignTime: createTime, failures: 0 });
    } else {
      if (tracked.history.length === 0) tracked.move({ state: State.PENDING, attempt: 0, agentId: '' });
      scheduler.queued();
      const none = await whyNoneCan(this.#options.sql, this.#options.registry, resolved.requirement);
      if (none !== undefined) await tracker.refuse(tracked, none.message, { agents: none.agents });
    }
    return { id: resolved.id, tracked };
  }

  /** Refuses what `accept` would, but for want of room, and accepts nothing. @throws HarrierError invalid_argument, not_found */
  async check(tenantId: string, request: ExecutionRequest): Promise<void> {
    await this.#checked(tenantId, request, '');
  }

  /** Waits for the end. @returns the execution in its final state. Rejects with the signal's reason. */
  async finished(
    tenantId: string,
    id: string,
    tracked: TrackedExecution | undefined,
    signal: AbortSignal,
  ): Promise<Execution> {
    this.#waiting++;
    try {
      return await this.#finished(tenantId, id, tracked, signal);
    } finally {
      this.#waiting--;
      this.#answered.notify();
    }
  }

  /** Resolves when nobody waits for an end, or after a time. */
  async answered(timeoutMs: number): Promise<void> {
    const endMs = performance.now() + timeoutMs;
    while (this.#waiting > 0 && performance.now() < endMs) {
      await this.#answered.wait(new AbortController().signal, endMs - performance.now());
    }
  }

  async #finished(
    tenantId: string,
    id: string,
    tracked: TrackedExecution | undefined,
    signal: AbortSignal,
  ): Promise<Execution> {
    if (tracked !== undefined) {
      while (!tracked.finished && this.#options.tracker.get(id) === tracked) await tracked.changed.wait(signal);
      if (tracked.finished) return executionMessage(rowOfTracked(tracked));
    }
    const told = this.#options.elsewhere.watch(tenantId, id);
    try {
      while (true) {
        const moves = told.moves;
        const { sql } = this.#options;
        const state = await untilDatabaseAnswers(() => readExecutionState(sql, tenantId, id), signal);
        if (state === undefined) throw notFound(id);
        if (state.end_time !== null) {
          return executionMessage(await untilDatabaseAnswers(() => this.#row(tenantId, id), signal));
        }
        const followed = this.#options.tracker.get(id);
        if (followed !== undefined && followed !== tracked) return await this.#finished(tenantId, id, followed, signal);
        const lookMs = performance.now() + LOOK_MS;
        // Steps on the way do not matter.
        while (told.moves === moves && performance.now() < lookMs) {
          await told.changed.wait(signal, Math.max(1, lookMs - performance.now()));
        }
      }
    } finally {
      this.#options.elsewhere.unwatch(id);
    }
  }

  /** @throws HarrierError not_found */
  async get(tenantId: string, id: string, options: { includeInput: boolean }): Promise<Execution> {
    const row = await this.#row(tenantId, id);
    const message = await this.#withMemory(row, tenantId);
    if (options.includeInput) message.inputJson = row.input_json ?? '';
    if (message.state === State.PENDING && message.nextAttemptTime === undefined) {
      const requirement = await this.#requirementOf(tenantId, row);
      const constraints = await this.#options.waiting.constraints(requirement, id);
      message.waitingConstraints = constraints.map((constraint) => create(WaitingConstraintSchema, constraint));
    }
    const ended: AttemptRow[] = await listAttempts(this.#options.sql, tenantId, id);
    // The last one stands in the execution itself, unless the execution was cancelled while it waited for another.
    const { attempt, end_time } = row;
    if (end_time !== null && attempt > (ended.at(-1)?.attempt ?? 0)) ended.push({ ...row, end_time });
    message.attempts = ended.map(attemptMessage);
    return message;
  }

  async list(
    tenantId: string,
    request: ListExecutionsRequest,
  ): Promise<{ executions: Execution[]; nextPageToken: string }> {
    const selector = parseLabelSelector(request.labelSelector, 'label_selector');
    const limit = pageSizeOf(request.pageSize);
    refuseNul('module', request.module);
    let before = decodePageToken(request.pageToken, [UUID_SHAPE])?.[0];
    const found: ExecutionRow[] = [];
    for (let scanned = 0; found.length <= limit && scanned < LABEL_SCAN_ROWS; ) {
      const rows = await listExecutions(this.#options.sql, {
        tenantId,
        limit: limit + 1,
        before,
        state: request.state === State.STATE_UNSPECIFIED ? undefined : request.state,
        module: request.module === '' ? undefined : request.module,
        createTimeFrom: request.createTimeFrom === undefined ? undefined : timestampDate(request.createTimeFrom),
        createTimeTo: request.createTimeTo === undefined ? undefined : timestampDate(request.createTimeTo),
      });
      scanned += rows.length;
      for (const row of rows) {
        before = row.id;
        if (matchesLabels(selector, row.labels ?? {}) && found.push(row) > limit) break;
      }
      if (rows.length <= limit) {
        before = undefined;
        break;
      }
    }
    const shown = found.slice(0, limit);
    const last = found.length > limit ? shown.at(-1)?.id : before;
    return {
      executions: shown.map((row) =>
        overlaid(executionMessage(row), row.end_time === null ? this.#options.tracker.get(row.id) : undefined),
      ),
      nextPageToken: last === undefined ? '' : encodePageToken(last),
    };
  }

  /** @throws HarrierError not_found */
  async cancel(tenantId: string, id: string, reason: string): Promise<Execution> {
    const message = storable(reason === '' ? 'cancelled by a caller' : reason);
    const outcome = await cancelExecution(this.#options.sql, {
      tenantId,
      id,
      message,
      cancelled: State.CANCELLED,
      errorCode: Code.CANCELLED,
    });
    if (outcome === undefined) throw notFound(id);
    const tracked = this.#options.tracker.get(id);
    if (tracked !== undefined) {
      if (outcome === 'ended') this.#options.tracker.cancelledWhileWaiting(tracked, message);
      if (outcome === 'requested') this.#options.tracker.requestCancel(tracked, message);
    } else if (outcome === 'requested') this.#options.tracker.rememberCancel(id, message);
    if (outcome !== 'finished') this.#options.cancelElsewhere(id, outcome);
    return await this.get(tenantId, id, { includeInput: false });
  }

  /** What a stored row asks for: for claims and for attempts that an agent brings back. */
  async resolveRow(
    row: Omit<ActiveRow, 'state' | 'assign_time' | 'assigned_ms' | 'cancel_reason' | 'reservation'>,
  ): Promise<ResolvedExecution> {
    const { modules } = this.#options;
    return resolveExecution({
      id: row.id,
      tenantId: row.tenant_id,
      request: decodeRequest(row.request),
      module: row.module_id === null ? undefined : await modules.resolveById(row.tenant_id, row.module_id),
      classes: this.#options.classes,
      inputJson: row.input_json,
      jsonText: row.json_text,
    });
  }

  async #checked(
    tenantId: string,
    request: ExecutionRequest,
    traceParent: string,
  ): Promise<{ resolved: ResolvedExecution; encoded: Buffer }> {
    checkTexts(request);
    const module = await this.#moduleOf(tenantId, request);
    const { classes } = this.#options;
    const className = request.taskClass || module?.module.taskClass || DEFAULT_TASK_CLASS;
    const taskClass = findTaskClass(classes, className, 'task_class');
    const { inputJson, jsonText } = checkedInput(request, module);
    const resolved = resolveExecution({
      id: uuidv7(),
      tenantId,
      request: storedRequest(request, traceParent),
      module,
      classes,
      inputJson,
      jsonText,
    });
    checkExecution(resolved, taskClass);
    const encoded = encodeRequest(resolved.request);
    checkAssignmentSize(resolved, encoded.length);
    return { resolved, encoded };
  }

  async #moduleOf(tenantId: string, request: ExecutionRequest): Promise<StoredModule | undefined> {
    if (request.target.case === 'module') {
      const { value: name } = request.target;
      return await this.#options.modules.resolve(tenantId, name, request.version, 'module');
    }
    if (request.version !== '') {
      throw new HarrierError('invalid_argument', 'version goes with module', { field: 'version' });
    }
    return undefined;
  }

  async #acceptedBefore(tenantId: string, key: string): Promise<{ id: string; tracked: TrackedExecution | undefined }> {
    const id = await findExecutionByKey(this.#options.sql, tenantId, key);
    if (id === undefined) throw new HarrierError('internal', 'an execution was not stored');
    return { id, tracked: this.#options.tracker.get(id) };
  }

  async #row(tenantId: string, id: string): Promise<ExecutionRow> {
    const row = await readExecution(this.#options.sql, tenantId, id);
    if (row === undefined) throw notFound(id);
    return row;
  }

  async #withMemory(row: ExecutionRow, tenantId: string): Promise<Execution> {
    const tracked = row.end_time === null ? this.#options.tracker.get(row.id) : undefined;
    const message = overlaid(executionMessage(row), tracked);
    if (message.state === State.PENDING && message.nextAttemptTime === undefined) {
      message.waitingReason = await this.waitingReason(tenantId, row);
    } else if (message.state !== State.PENDING && !isFinal(message.state)) {
      message.waitingReason = tracked?.endRefused ?? (await this.#options.braked.reason(message.agentId));
    }
    return message;
  }

  /** Why a stored execution that waits does so, as far as this replica can tell. */
  async waitingReason(tenantId: string, row: ExecutionRow): Promise<string> {
    const due = dueReason(row.attempt > 0 ? row.queue_time : undefined);
    return due ?? (await this.#options.explain(await this.#requirementOf(tenantId, row), row.id));
  }

  async #requirementOf(tenantId: string, row: ExecutionRow): Promise<Requirement> {
    const request = row.request ?? new Uint8Array();
    const { requirement } =
      this.#options.tracker.get(row.id)?.resolved ??
      (await this.resolveRow({ ...row, tenant_id: tenantId, request, input_json: '{}' }));
    return requirement;
  }
}

/** What memory knows better than the database, which is told of running states a little later. */
function overlaid(message: Execution, tracked: TrackedExecution | undefined): Execution {
  if (tracked === undefined || tracked.history.length === 0) return message;
  const { current, progress, log, nextAttemptTime } = tracked;
  message.state = current.state;
  message.attempt = current.attempt;
  message.agentId = current.agentId;
  if (progress !== undefined) message.progress = { $typeName: 'harrier.v1.Progress', ...progress };
  if (log !== undefined) {
    message.stdoutBytes = BigInt(log.stdout.end);
    message.stderrBytes = BigInt(log.stderr.end);
  }
  const reason = current.state === State.PENDING ? dueReason(nextAttemptTime) : undefined;
  if (reason !== undefined && nextAttemptTime !== undefined) {
    message.nextAttemptTime = timestampFromDate(nextAttemptTime);
    message.waitingReason = reason;
  }
  return message;
}

function newRow(
  resolved: ResolvedExecution,
  encoded: string,
  placed: Placement | undefined,
  replicaId: string,
): NewExecution {
  const { request, program, requirement } = resolved;
  const agentId = placed?.agentId;
  const stored = program.kind === 'module' ? program.stored : undefined;
  const hasLabels = Object.keys(request.labels).length > 0;
  return {
    id: resolved.id,
    tenant_id: resolved.tenantId,
    state: agentId === undefined ? State.PENDING : State.ASSIGNED,
    attempt: agentId === undefined ? 0 : 1,
    agent_id: agentId ?? null,
    module_id: stored?.id ?? null,
    module: stored?.module.name ?? null,
    version: stored?.module.version ?? null,
    task_class: resolved.taskClass,
    labels: hasLabels ? request.labels : null,
    priority: resolved.priority,
    request: encoded,
    input_json: resolved.inputJson,
    json_text: resolved.jsonText,
    idempotency_key: request.idempotencyKey === '' ? null : request.idempotencyKey,
    replica_id: replicaId,
    shape: placed === undefined ? laneShape(requirement) : '',
    reservation: placed === undefined ? null : storedReservation(placed.reservation),
    concurrency_key: requirement.limit?.key ?? null,
  };
}

function notFound(id: string): HarrierError {
  return new HarrierError('not_found', `there is no execution ${id}`, { field: 'id' });
}
