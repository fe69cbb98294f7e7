import { Code, ConnectError } from '@connectrpc/connect';
import type { UniversalHandler, UniversalServerRequest } from '@connectrpc/connect/protocol';
import type { BodyBudget } from '../body-budget.ts';
import { type HttpRequest, type HttpResponse, headersFrom, onGone } from '../http-types.ts';
import { readBody } from '../read-body.ts';
import { checkBody } from './check-body.ts';

/** What gRPC puts before a message. */
const ENVELOPE_BYTES = 5;

/** Connect parses the URL for its query only; a Host header that is missing or malformed must not matter. */
const BASE_URL = 'http://harrier';

/** The request as Connect's handlers take it. Its signal aborts when the caller goes away before the response was sent. */
export function createUniversalRequest(
  handler: UniversalHandler,
  request: HttpRequest,
  response: HttpResponse,
  maxMessageBytes: number,
  bodies: BodyBudget,
): UniversalServerRequest {
  const gone = new AbortController();
  onGone(response, () => gone.abort(new ConnectError('the caller went away', Code.Canceled)));
  const header = headersFrom(request);
  const streamsIn = handler.method.methodKind === 'client_streaming' || handler.method.methodKind === 'bidi_streaming';
  return {
    httpVersion: request.httpVersion,
    method: request.method ?? '',
    url: BASE_URL + request.url,
    header,
    body: streamsIn
      ? request
      : inOnePiece(async () => {
          const body = await readBody(request, maxMessageBytes, bodies, ENVELOPE_BYTES);
          await checkBody(handler.method.input, header, body, maxMessageBytes);
          return body;
        }),
    signal: gone.signal,
  };
}

/**
 * The body in one piece, read when it is asked for: a request that the gate refuses is never read. One message is all that
 * these calls send, and reading it by events costs a fraction of iterating a Node stream.
 */
function inOnePiece(read: () => Promise<Uint8Array>): AsyncIterable<Uint8Array> {
  return {
    [Symbol.asyncIterator]() {
      let asked = false;
      return {
        async next() {
          if (asked) return { done: true, value: undefined };
          asked = true;
          return { done: false, value: await read() };
        },
      };
    },
  };
}
