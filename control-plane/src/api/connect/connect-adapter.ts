import { Code, ConnectError } from '@connectrpc/connect';
import type { UniversalHandler, UniversalServerRequest } from '@connectrpc/connect/protocol';
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from '@connectrpc/connect-node';
import { type Logger, messageOf } from '@harrier/shared';
import { sendError } from '../error-response.ts';
import { type HttpHandler, type HttpRequest, type HttpResponse, pathOf } from '../http-types.ts';

type NodeRequest = Parameters<typeof universalRequestFromNodeRequest>[0];
type NodeResponse = Parameters<typeof universalResponseToNodeResponse>[1];

/**
 * Serves the RPC paths of a Connect router on Node's requests; answers undefined for other paths. It takes the place of
 * connect-node's `connectNodeAdapter`, which throws out of the request listener, and so ends the process, on a request
 * without a usable Host header, logs to the console, and answers 405 and 415 without a body.
 */
export function createConnectAdapter(
  handlers: UniversalHandler[],
  logger: Logger,
): (path: string) => HttpHandler | undefined {
  const byPath = new Map<string, HttpHandler>();
  for (const handler of handlers) {
    byPath.set(handler.requestPath, (request, response) => {
      serve(handler, request, response).catch((error: unknown) => {
        logger.debug({ err: error, path: pathOf(request) }, 'response was not delivered');
      });
    });
  }
  return (path) => byPath.get(path);
}

async function serve(handler: UniversalHandler, request: HttpRequest, response: HttpResponse): Promise<void> {
  let universal: UniversalServerRequest;
  try {
    universal = universalRequestFromNodeRequest(request as NodeRequest, response as NodeResponse, undefined, undefined);
  } catch (error) {
    sendError(response, new ConnectError(`bad request target or Host: ${messageOf(error)}`, Code.InvalidArgument));
    return;
  }
  const answer = await handler(universal);
  if (answer.body === undefined && (answer.status === 405 || answer.status === 415)) {
    refuse(handler, request, response, answer.status);
    return;
  }
  await universalResponseToNodeResponse(answer, response as NodeResponse);
}

function refuse(handler: UniversalHandler, request: HttpRequest, response: HttpResponse, status: 405 | 415): void {
  const message =
    status === 405
      ? `${handler.requestPath} does not take ${request.method}`
      : `${handler.requestPath} does not take the content type ${JSON.stringify(request.headers['content-type'] ?? '')}`;
  const headers = status === 405 ? { allow: handler.allowedMethods.join(', ') } : {};
  sendError(response, new ConnectError(message, Code.Unimplemented), { status, headers });
}
