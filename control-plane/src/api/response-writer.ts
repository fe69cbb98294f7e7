import { once } from 'node:events';
import type { OutgoingHttpHeaders } from 'node:http';
import { constants } from 'node:http2';
import type { Logger } from '@harrier/shared';
import type { HttpResponse } from './http-types.ts';

/** Headers that the service set; what describes the body is the renderer's. */
export function headersOf(responseHeader: Headers | undefined): OutgoingHttpHeaders {
  const headers: OutgoingHttpHeaders = {};
  if (responseHeader === undefined) return headers;
  for (const [name, value] of responseHeader) headers[name] = value;
  return headers;
}

/** Answers at once with a body of known length. */
export function sendText(
  response: HttpResponse,
  status: number,
  contentType: string,
  headers: OutgoingHttpHeaders,
  text: string,
): void {
  response.writeHead(status, {
    ...headers,
    'content-type': contentType,
    'content-length': Buffer.byteLength(text),
  });
  response.end(text);
}

/** Writes and, when the reader is slower than the writer, waits until it has caught up or `signal` aborts. */
export async function writeChunk(
  response: HttpResponse,
  chunk: string | Uint8Array,
  signal: AbortSignal,
): Promise<void> {
  if (response.write(chunk)) return;
  await once(response as NodeJS.EventEmitter, 'drain', { signal });
}

/** Ends a response so that the reader can tell that it is not complete. */
export function breakOff(response: HttpResponse): void {
  if ('stream' in response) response.stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  else response.destroy();
}

/**
 * The end of every chain of promises that serves a request: what still fails breaks the response off instead of the process. Callers
 * who go, or wait no longer than they have said, are everyday; else somebody waits for an answer, and the fault is ours.
 */
export function settle(served: Promise<void>, response: HttpResponse, logger: Logger): void {
  served.catch((error: unknown) => {
    const level = isGone(response) || isAbort(error) ? 'debug' : 'error';
    logger[level]({ err: error }, 'response was not delivered');
    breakOff(response);
  });
}

function isGone(response: HttpResponse): boolean {
  return 'stream' in response ? response.stream.closed || response.stream.destroyed : response.destroyed;
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError';
}
