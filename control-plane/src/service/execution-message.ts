import { create, type JsonObject } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { type ExecutionError_Code as Code, type ExecutionError, ExecutionErrorSchema } from '@harrier/shared/gen/error';
import {
  type Attempt,
  AttemptSchema,
  type Execution,
  ExecutionSchema,
  type Execution_State as State,
} from '@harrier/shared/gen/execution';
import { storedReservation } from '../agent-link/reservation.ts';
import type { AttemptRow, ExecutionRow } from '../db/queries/read-executions.ts';
import { isShowable, showable } from './json-document.ts';
import type { TrackedExecution } from './tracked-execution.ts';

/** An execution as callers see it. */
export function executionMessage(row: ExecutionRow): Execution {
  const message = create(ExecutionSchema, {
    id: row.id,
    state: row.state as State,
    attempt: row.attempt,
    agentId: row.agent_id ?? '',
    module: row.module ?? '',
    version: row.version ?? '',
    taskClass: row.task_class,
    labels: row.labels ?? {},
    priority: row.priority,
    stdoutTail: row.stdout_tail ?? '',
    stderrTail: row.stderr_tail ?? '',
    stdoutBytes: BigInt(row.stdout_bytes ?? 0),
    stderrBytes: BigInt(row.stderr_bytes ?? 0),
    stdoutTruncated: row.stdout_truncated ?? false,
    stderrTruncated: row.stderr_truncated ?? false,
    createTime: timestampFromDate(row.create_time),
    cancelRequested: row.cancel_reason !== null && row.end_time === null,
    gpuUuids: [...(row.reservation?.gpu_uuids ?? [])],
  });
  if (row.exit_code !== null) message.exitCode = row.exit_code;
  if (row.output_json !== null) {
    const output = row.json_text ? undefined : (JSON.parse(row.output_json) as JsonObject);
    // One that no Struct can hold, of a version that did not look, is told as the text that it is.
    if (output !== undefined && isShowable(output)) message.output = output;
    else message.outputJson = row.output_json;
  }
  const error = errorMessage(row);
  if (error !== undefined) message.error = error;
  addTimes(message, row);
  if (row.cpu_ms !== null || row.max_rss_bytes !== null) {
    message.usage = {
      $typeName: 'harrier.v1.Execution.Usage',
      cpuMs: row.cpu_ms ?? 0,
      maxRssBytes: BigInt(row.max_rss_bytes ?? 0),
    };
  }
  return message;
}

function addTimes(message: Execution, row: ExecutionRow): void {
  if (row.start_time !== null) message.startTime = timestampFromDate(row.start_time);
  if (row.end_time !== null) {
    message.endTime = timestampFromDate(row.end_time);
    message.durationMs = row.end_time.getTime() - row.create_time.getTime();
  }
  if (row.assign_time !== null) {
    message.phases = {
      $typeName: 'harrier.v1.Execution.Phases',
      queuedMs: Math.max(0, row.assign_time.getTime() - row.queue_time.getTime()),
      prepareMs: row.prepare_ms ?? 0,
      runMs: row.run_ms ?? 0,
    };
  }
}

interface ErrorColumns {
  error_code: number | null;
  error_message: string | null;
  error_details: string | null;
}

/** An error that was not stored with an execution. */
export function errorOf({ code, message }: { code: Code; message: string }): ExecutionError {
  return create(ExecutionErrorSchema, { code, message });
}

function errorMessage(row: ErrorColumns): ExecutionError | undefined {
  if (row.error_code === null) return undefined;
  const error = create(ExecutionErrorSchema, { code: row.error_code as Code, message: row.error_message ?? '' });
  if (row.error_details !== null) error.details = showable(JSON.parse(row.error_details) as JsonObject);
  return error;
}

export function attemptMessage(row: AttemptRow): Attempt {
  const attempt = create(AttemptSchema, {
    number: row.attempt,
    agentId: row.agent_id ?? '',
    state: row.state as State,
    endTime: timestampFromDate(row.end_time),
  });
  const error = errorMessage(row);
  if (error !== undefined) attempt.error = error;
  if (row.exit_code !== null) attempt.exitCode = row.exit_code;
  if (row.assign_time !== null) attempt.assignTime = timestampFromDate(row.assign_time);
  if (row.start_time !== null) attempt.startTime = timestampFromDate(row.start_time);
  return attempt;
}

/** The row of an execution that this replica follows, from memory. */
export function rowOfTracked(tracked: TrackedExecution): ExecutionRow {
  const { resolved, current, result, times } = tracked;
  const { request, program } = resolved;
  const module = program.kind === 'module' ? program.stored.module : undefined;
  return {
    id: resolved.id,
    state: current.state,
    attempt: current.attempt,
    failures: tracked.failures,
    agent_id: current.agentId === '' ? null : current.agentId,
    module_id: null,
    module: module?.name ?? null,
    version: module?.version ?? null,
    task_class: resolved.taskClass,
    labels: request.labels,
    priority: resolved.priority,
    json_text: resolved.jsonText,
    output_json: result?.output_json ?? null,
    error_code: result?.error_code ?? null,
    error_message: result?.error_message ?? null,
    error_details: result?.error_details ?? null,
    exit_code: result?.exit_code ?? null,
    stdout_tail: result?.stdout_tail ?? null,
    stderr_tail: result?.stderr_tail ?? null,
    stdout_bytes: result?.stdout_bytes ?? tracked.log?.stdout.end ?? null,
    stderr_bytes: result?.stderr_bytes ?? tracked.log?.stderr.end ?? null,
    stdout_truncated: result?.stdout_truncated ?? null,
    stderr_truncated: result?.stderr_truncated ?? null,
    cpu_ms: result?.cpu_ms ?? null,
    max_rss_bytes: result?.max_rss_bytes ?? null,
    create_time: times.createTime,
    queue_time: times.queueTime,
    assign_time: times.assignTime ?? null,
    start_time: times.startTime ?? null,
    end_time: times.endTime ?? null,
    prepare_ms: result?.prepare_ms ?? null,
    run_ms: result?.run_ms ?? null,
    cancel_reason: tracked.cancelReason ?? null,
    log_delete_time: null,
    reservation: storedReservation(tracked.reservation),
  };
}
