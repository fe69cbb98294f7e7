import { Code, ConnectError } from '@connectrpc/connect';
import type { UniversalHandler } from '@connectrpc/connect/protocol';
import type { Logger } from '@harrier/shared';
import type { BodyBudget } from '../body-budget.ts';
import { sendError } from '../error-response.ts';
import { type HttpRequest, type HttpResponse, pathOf, type TryHandler } from '../http-types.ts';
import { settle } from '../response-writer.ts';
import { sendUniversalResponse } from './send-universal-response.ts';
import { createUniversalRequest } from './universal-request.ts';

/**
 * Serves the RPC paths of a Connect router on Node's requests; in place of
 * connect-node's `connectNodeAdapter`, which throws out of the request listener, and so ends the process, on a request
 * without a usable Host header, logs to the console, answers 405 and 415 without a body, and costs twice the time.
 */
export function createConnectAdapter(
  handlers: UniversalHandler[],
  maxMessageBytes: number,
  bodies: BodyBudget,
  logger: Logger,
): TryHandler {
  const byPath = new Map(handlers.map((handler) => [handler.requestPath, handler]));
  return (request, response) => {
    const handler = byPath.get(pathOf(request));
    if (handler === undefined) return false;
    settle(serve(handler, request, response, maxMessageBytes, bodies), response, logger);
    return true;
  };
}

async function serve(
  handler: UniversalHandler,
  request: HttpRequest,
  response: HttpResponse,
  maxMessageBytes: number,
  bodies: BodyBudget,
): Promise<void> {
  const universal = createUniversalRequest(handler, request, response, maxMessageBytes, bodies);
  const answer = await handler(universal);
  if (answer.body === undefined && (answer.status === 405 || answer.status === 415)) {
    refuse(handler, request, response, answer.status);
  } else {
    await sendUniversalResponse(answer, response, universal.signal);
  }
}

function refuse(handler: UniversalHandler, request: HttpRequest, response: HttpResponse, status: 405 | 415): void {
  const message =
    status === 405
      ? `${handler.requestPath} does not take ${request.method}`
      : `${handler.requestPath} does not take the content type ${JSON.stringify(request.headers['content-type'] ?? '')}`;
  const headers = status === 405 ? { allow: handler.allowedMethods.join(', ') } : {};
  sendError(response, new ConnectError(message, Code.Unimplemented), { status, headers });
}
