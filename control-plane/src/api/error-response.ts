import type { OutgoingHttpHeaders } from 'node:http';
import type { ConnectError } from '@connectrpc/connect';
import { codeToHttpStatus, errorToJsonBytes } from '@connectrpc/connect/protocol-connect';
import type { HttpResponse } from './http-types.ts';

/** Answers with the body that every Connect error has, `{"code","message","details"}`; the status is that of its code unless given. */
export function sendError(
  response: HttpResponse,
  error: ConnectError,
  options: { status?: number; headers?: OutgoingHttpHeaders } = {},
): void {
  const headers: OutgoingHttpHeaders = {};
  for (const [name, value] of error.metadata) headers[name] = value;
  const body = errorToJsonBytes(error, undefined);
  response.writeHead(options.status ?? codeToHttpStatus(error.code), {
    ...headers,
    ...options.headers,
    'content-type': 'application/json',
    'content-length': body.byteLength,
  });
  response.end(body);
}
