import { create } from '@bufbuild/protobuf';
import { type ExecutionError, ExecutionErrorSchema } from '@harrier/shared/gen/error';
import { Execution_State as State, LogChunk_Stream as Stream } from '@harrier/shared/gen/execution';
import { type AgentMessage, AgentMessageSchema } from '@harrier/shared/gen/link';
import type { AttemptEnd, AttemptKey } from '../executor/executor.ts';
import { sendableDetails } from './sendable-details.ts';

const STATES = {
  succeeded: State.SUCCEEDED,
  failed: State.FAILED,
  timed_out: State.TIMED_OUT,
  cancelled: State.CANCELLED,
} as const;

const STREAMS = { stdout: Stream.STDOUT, stderr: Stream.STDERR } as const;

export function preparingMessage(ref: AttemptKey): AgentMessage {
  return create(AgentMessageSchema, { message: { case: 'preparing', value: { ref: refOf(ref) } } });
}

export function lockFoundMessage(ref: AttemptKey, lock: string, platform: string): AgentMessage {
  return create(AgentMessageSchema, { message: { case: 'lockFound', value: { ref: refOf(ref), lock, platform } } });
}

export function startedMessage(ref: AttemptKey): AgentMessage {
  return create(AgentMessageSchema, { message: { case: 'started', value: { ref: refOf(ref) } } });
}

export function logMessage(
  ref: AttemptKey,
  stream: keyof typeof STREAMS,
  offset: number,
  data: Uint8Array,
): AgentMessage {
  const value = { ref: refOf(ref), stream: STREAMS[stream], offset: BigInt(offset), data };
  return create(AgentMessageSchema, { message: { case: 'log', value } });
}

export function progressMessage(ref: AttemptKey, percent: number, step: string): AgentMessage {
  return create(AgentMessageSchema, {
    message: { case: 'progress', value: { ref: refOf(ref), progress: { percent, step } } },
  });
}

export function resultMessage(ref: AttemptKey, end: AttemptEnd, prepareMs: number): AgentMessage {
  return create(AgentMessageSchema, {
    message: {
      case: 'result',
      value: {
        ref: refOf(ref),
        state: STATES[end.outcome],
        outputJson: end.output,
        usage: { cpuMs: end.cpuMs, maxRssBytes: BigInt(end.maxRssBytes) },
        prepareMs,
        runMs: end.runMs,
        stdoutBytes: BigInt(end.stdoutBytes),
        stderrBytes: BigInt(end.stderrBytes),
        stdoutTruncated: end.stdoutTruncated,
        stderrTruncated: end.stderrTruncated,
        ...(end.error === undefined ? {} : { error: errorMessage(end.error) }),
        ...(end.exitCode === undefined ? {} : { exitCode: end.exitCode }),
      },
    },
  });
}

export function rejectedMessage(
  ref: AttemptKey,
  error: Pick<ExecutionError, 'code' | 'message'>,
  requeue: boolean,
): AgentMessage {
  const value = { ref: refOf(ref), error: create(ExecutionErrorSchema, error), requeue };
  return create(AgentMessageSchema, { message: { case: 'rejected', value } });
}

function errorMessage({ code, message, details }: NonNullable<AttemptEnd['error']>): ExecutionError {
  return create(ExecutionErrorSchema, {
    ...{ code, message },
    ...(details === undefined ? {} : { details: sendableDetails(details) }),
  });
}

function refOf({ executionId, attempt }: AttemptKey): { executionId: string; attempt: number } {
  return { executionId, attempt };
}
