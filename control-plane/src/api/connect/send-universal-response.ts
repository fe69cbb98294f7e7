import type { OutgoingHttpHeaders } from 'node:http';
import type { UniversalServerResponse } from '@connectrpc/connect/protocol';
import type { HttpResponse } from '../http-types.ts';
import { headersOf, writeChunk } from '../response-writer.ts';

/**
 * Sends what a Connect handler answers. The status line waits for the first piece of the body, as services may set headers
 * until then. When the reader is gone, the handler's iterator is told, so that it can stop.
 */
export async function sendUniversalResponse(
  answer: UniversalServerResponse,
  response: HttpResponse,
  signal: AbortSignal,
): Promise<void> {
  const headers = headersOf(answer.header ?? NO_HEADERS);
  if (answer.body === undefined || answer.body === null) {
    response.writeHead(answer.status, headers);
    end(response, answer.trailer);
    return;
  }
  const iterator = answer.body[Symbol.asyncIterator]();
  try {
    let piece = await iterator.next();
    response.writeHead(answer.status, headers);
    if (isWhole(headers) && piece.done !== true) {
      response.end(piece.value);
      return;
    }
    for (; piece.done !== true; piece = await iterator.next()) await writeChunk(response, piece.value, signal);
    end(response, answer.trailer);
  } finally {
    iterator.return?.().catch(() => {});
  }
}

const NO_HEADERS = new Headers();

/** Connect's unary responses declare their length and come in one piece: one packet instead of two. */
function isWhole(headers: OutgoingHttpHeaders): boolean {
  return headers['content-length'] !== undefined;
}

function end(response: HttpResponse, trailer: Headers | undefined): void {
  if (trailer !== undefined) response.addTrailers(headersOf(trailer));
  response.end();
}
