import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2';

/** A request of either HTTP version. */
export type HttpRequest = IncomingMessage | Http2ServerRequest;

/** A response of either HTTP version. The overloads that both versions share, which TypeScript cannot derive from the union. */
export type HttpResponse = (Plain<ServerResponse> | Plain<Http2ServerResponse>) & {
  write(chunk: string | Uint8Array, callback?: (error?: Error | null) => void): boolean;
  writeHead(status: number, headers?: OutgoingHttpHeaders): unknown;
  flushHeaders(): void;
  end(chunk?: string | Uint8Array): unknown;
};

type Plain<Response> = Omit<Response, 'write' | 'writeHead' | 'flushHeaders' | 'end'>;

export type HttpHandler = (request: HttpRequest, response: HttpResponse) => void;

/** Answers false, and leaves the request alone, when it is not one of its own. */
export type TryHandler = (request: HttpRequest, response: HttpResponse) => boolean;

/** The path of a request without its query; `/` when the target is not a path (`OPTIONS *`, an absolute URL). */
export function pathOf(request: HttpRequest): string {
  const target = request.url ?? '/';
  const end = target.indexOf('?');
  return end === -1 ? target : target.slice(0, end);
}

/** The query of a request without `?`; empty when there is none. */
export function queryOf(request: HttpRequest): string {
  const target = request.url ?? '/';
  const start = target.indexOf('?');
  return start === -1 ? '' : target.slice(start + 1);
}

/** Headers without the pseudo-headers of HTTP/2. */
export function headersFrom(request: HttpRequest): Headers {
  const headers = new Headers();
  for (const [name, value] of Object.entries(request.headers)) {
    if (value === undefined || name.startsWith(':')) continue;
    if (typeof value === 'string') headers.append(name, value);
    else for (const each of value) headers.append(name, each);
  }
  return headers;
}

/** Calls back once if the connection or the stream is gone before the response was sent. */
export function onGone(response: HttpResponse, callback: () => void): void {
  if ('stream' in response) {
    // Node counts the response of a cancelled HTTP/2 stream as finished.
    response.stream.once('aborted', callback);
    return;
  }
  response.once('close', () => {
    if (!response.writableFinished) callback();
  });
}
