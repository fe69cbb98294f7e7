import { setTimeout as delay } from 'node:timers/promises';
import type { Message } from '@bufbuild/protobuf';
import { ConnectError, type HandlerContext } from '@connectrpc/connect';
import type { HttpResponse } from '../http-types.ts';
import { breakOff, headersOf, writeChunk } from '../response-writer.ts';
import type { StreamFormat } from './stream-format.ts';

/**
 * How long the status line waits for the first message. An error that comes before it still gets its own status; a log
 * that stays silent must not leave the caller without an answer.
 */
const STATUS_WAIT_MS = 250;
/** Less than the idle limit of common proxies (60 s). */
const HEARTBEAT_MS = 15_000;

/** Writes a server stream as it comes. Throws only as long as nothing was written; a later failure is told as the format says. */
export async function serveStream(
  response: HttpResponse,
  messages: AsyncIterable<Message>,
  format: StreamFormat,
  context: HandlerContext,
): Promise<void> {
  const { signal } = context;
  const iterator = messages[Symbol.asyncIterator]();
  let next = iterator.next();
  await firstOrPatience(next);

  response.writeHead(200, {
    ...headersOf(context.responseHeader),
    'content-type': format.contentType,
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    // nginx would hold small chunks back.
    'x-accel-buffering': 'no',
  });
  response.flushHeaders();
  const heartbeat = startHeartbeat(response, format);
  try {
    for (let result = await next; result.done !== true; result = await next) {
      const chunk = format.encode(result.value);
      if (chunk.length > 0) await writeChunk(response, chunk, signal);
      heartbeat?.refresh();
      next = iterator.next();
    }
    response.end(format.end);
  } catch (error) {
    if (format.encodeError === undefined || signal.aborted) breakOff(response);
    else response.end(format.encodeError(ConnectError.from(error)));
  } finally {
    clearInterval(heartbeat);
    next.catch(() => {});
    void iterator.return?.().catch(() => {});
  }
}

async function firstOrPatience(next: Promise<unknown>): Promise<void> {
  const patience = new AbortController();
  try {
    await Promise.race([next, delay(STATUS_WAIT_MS, undefined, { signal: patience.signal })]);
  } finally {
    patience.abort();
  }
}

function startHeartbeat(response: HttpResponse, { heartbeat }: StreamFormat): NodeJS.Timeout | undefined {
  if (heartbeat === undefined) return undefined;
  return setInterval(() => response.write(heartbeat), HEARTBEAT_MS).unref();
}
