import { create } from '@bufbuild/protobuf';
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect';
import { HarrierError } from '@harrier/shared';
import {
  ExecuteStreamResponseSchema,
  type Execution,
  type ExecutionService as ExecutionServiceDescriptor,
  ReadLogsResponseSchema,
  LogChunk_Stream as Stream,
  WatchExecutionResponseSchema,
} from '@harrier/shared/gen/execution';
import type { LogStreamName } from '../service/attempt-log.ts';
import type { ExecutionService } from '../service/execution-service.ts';
import type { ExecutionEvent, ExecutionWatcher } from '../service/execution-watcher.ts';
import { callerOf } from './interceptors/principal.ts';
import { traceExecution, traceParentOf } from './interceptors/tracing.ts';

/** Set on every answer about one execution, also on errors: an execution goes on when its caller gives up. */
const ID_HEADER = 'harrier-execution-id';

/** `ExecutionService` of the schema, over the services. */
export function createExecutionApi(
  executions: ExecutionService,
  watcher: ExecutionWatcher,
): ServiceImpl<typeof ExecutionServiceDescriptor> {
  return {
    async execute(request, context) {
      const { tenantId } = callerOf(context);
      const { id, tracked } = await executions.accept(tenantId, request, traceParent(context));
      tellId(context, id);
      return { execution: await executions.finished(tenantId, id, tracked, context.signal) };
    },
    async *executeStream(request, context) {
      const { tenantId } = callerOf(context);
      // Nothing is begun that could not be followed.
      const leave = watcher.enter(tenantId);
      try {
        const { id } = await executions.accept(tenantId, request, traceParent(context));
        tellId(context, id);
        const from = { attempt: 1, stdout: 0, stderr: 0 };
        // Its caller did not ask for bytes, and may have made the call again with its key for the result.
        const options = { tenantId, id, from, passesOverDeleted: true, signal: context.signal };
        for await (const event of watcher.watch(options)) {
          yield create(ExecuteStreamResponseSchema, { event: eventField(event, id) });
        }
      } finally {
        leave();
      }
    },
    async createExecution(request, context) {
      const { tenantId } = callerOf(context);
      const { id } = await executions.accept(tenantId, request, traceParent(context));
      tellId(context, id);
      return { execution: await executions.get(tenantId, id, { includeInput: false }) };
    },
    async getExecution(request, context) {
      const { includeInput } = request;
      return { execution: await executions.get(callerOf(context).tenantId, request.id, { includeInput }) };
    },
    async listExecutions(request, context) {
      return await executions.list(callerOf(context).tenantId, request);
    },
    async cancelExecution(request, context) {
      return { execution: await executions.cancel(callerOf(context).tenantId, request.id, request.reason) };
    },
    async *watchExecution(request, context) {
      const { id, attempt } = request;
      const from = { attempt, stdout: toOffset(request.stdoutOffset), stderr: toOffset(request.stderrOffset) };
      const { tenantId } = callerOf(context);
      const leave = watcher.enter(tenantId);
      try {
        for await (const event of watcher.watch({ tenantId, id, from, signal: context.signal })) {
          yield create(WatchExecutionResponseSchema, { event: eventField(event, id) });
        }
      } finally {
        leave();
      }
    },
    async *readLogs(request, context) {
      const { id, attempt, follow, stream } = request;
      const from = { attempt, stdout: toOffset(request.stdoutOffset), stderr: toOffset(request.stderrOffset) };
      const streams = streamsOf(stream);
      const { tenantId } = callerOf(context);
      const leave = follow ? watcher.enter(tenantId) : undefined;
      try {
        for await (const event of watcher.readLogs({ tenantId, id, from, streams, follow, signal: context.signal })) {
          yield create(ReadLogsResponseSchema, { chunk: chunkOf(event) });
        }
      } finally {
        leave?.();
      }
    },
  } satisfies ServiceImpl<typeof ExecutionServiceDescriptor>;
}

function tellId({ responseHeader, values }: HandlerContext, id: string): void {
  responseHeader.set(ID_HEADER, id);
  traceExecution(values, id);
}

function traceParent({ values, requestHeader }: HandlerContext): string {
  return traceParentOf({ contextValues: values, header: requestHeader });
}

function eventField(event: ExecutionEvent, id: string) {
  switch (event.kind) {
    case 'state':
      return { case: 'state' as const, value: { id, ...event.change, waitingReason: event.waitingReason } };
    case 'log':
      return { case: 'log' as const, value: chunkOf(event) };
    case 'progress':
      return { case: 'progress' as const, value: event.progress };
    case 'result':
      return { case: 'result' as const, value: event.execution satisfies Execution };
  }
}

function chunkOf(event: ExecutionEvent & { kind: 'log' }) {
  const { attempt, stream, piece } = event;
  return { attempt, stream, offset: BigInt(piece.offset), data: piece.data };
}

function streamsOf(stream: Stream): readonly LogStreamName[] {
  if (stream === Stream.STDOUT) return [Stream.STDOUT];
  if (stream === Stream.STDERR) return [Stream.STDERR];
  return [Stream.STDOUT, Stream.STDERR];
}

function toOffset(offset: bigint): number {
  if (offset > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new HarrierError('invalid_argument', `offset ${offset} is beyond every log`, { field: 'stdout_offset' });
  }
  return Number(offset);
}
