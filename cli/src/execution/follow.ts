import { setTimeout as wait } from 'node:timers/promises';
import type { CallOptions, Client } from '@connectrpc/connect';
import { cappedExponentialMs } from '@harrier/shared';
import {
  type ExecuteStreamResponse,
  type Execution,
  type ExecutionService,
  LogChunk_Stream as Stream,
} from '@harrier/shared/gen/execution';
import { isConnectionLoss } from '../connection/call-error.ts';
import { CliError, EXIT } from '../failure.ts';
import type { RequestInit } from './request-options.ts';

export type ExecutionEvent = ExecuteStreamResponse['event'];

/** A control plane that is restarted is back long before this. */
const MAX_RECONNECTS = 10;
const RECONNECT_BACKOFF = { initialMs: 100, maxMs: 5_000, multiplier: 2 };

export interface FollowOptions {
  client: Client<typeof ExecutionService>;
  /** Called once, as soon as the execution has an id. */
  onId?: (id: string) => void;
}

/**
 * Starts an execution and yields what happens to it, the result as the last event. Each byte of output comes once: when
 * the connection is lost on the way, the rest is read over a new one, from where the lost one ended.
 */
export async function* startAndFollow(
  request: RequestInit,
  { client, onId }: FollowOptions,
): AsyncGenerator<ExecutionEvent, Execution> {
  const position = { id: '', attempt: 0, stdoutOffset: 0n, stderrOffset: 0n };
  const started: CallOptions = {
    onHeader: (headers) => {
      position.id = headers.get('harrier-execution-id') ?? '';
      if (position.id !== '') onId?.(position.id);
    },
  };
  for (let losses = 0; ; ) {
    try {
      const stream =
        position.id === '' ? client.executeStream(request, started) : client.watchExecution({ ...position });
      for await (const { event } of stream) {
        losses = 0;
        advance(position, event);
        yield event;
        if (event.case === 'result') return event.value;
      }
      throw new CliError('the control plane ended the stream before the result', EXIT.unreachable);
    } catch (error) {
      // Without an id nobody knows whether it was accepted; a second request might run it twice.
      if (position.id === '' || !isConnectionLoss(error) || losses >= MAX_RECONNECTS) throw error;
      await wait(cappedExponentialMs(losses, RECONNECT_BACKOFF));
      losses += 1;
    }
  }
}

interface Position {
  attempt: number;
  stdoutOffset: bigint;
  stderrOffset: bigint;
}

function advance(position: Position, event: ExecutionEvent): void {
  if (event.case !== 'log') return;
  const { attempt, stream, offset, data } = event.value;
  if (attempt !== position.attempt) Object.assign(position, { attempt, stdoutOffset: 0n, stderrOffset: 0n });
  const end = offset + BigInt(data.length);
  if (stream === Stream.STDERR) position.stderrOffset = end;
  else position.stdoutOffset = end;
}
