import { type DescMethod, getOption, type Message } from '@bufbuild/protobuf';
import { Code, ConnectError, type Interceptor } from '@connectrpc/connect';
import { parseTimeout } from '@connectrpc/connect/protocol-connect';
import { Rest_Rendering, rest_rendering } from '@harrier/shared/gen/options';
import { type CallContext, createCallContext } from '../call/call-context.ts';
import type { CallOptions } from '../call/call-options.ts';
import { decodeObserved } from '../call/decode-observed.ts';
import { createLocalCall, type ImplementedService, type LocalCall } from '../call/local-call.ts';
import { sendError } from '../error-response.ts';
import { type HttpRequest, type HttpResponse, pathOf, queryOf, type TryHandler } from '../http-types.ts';
import { toConnectError } from '../interceptors/errors.ts';
import { methodNameOf } from '../interceptors/method-name.ts';
import { readBody } from '../read-body.ts';
import { breakOff, headersOf, settle } from '../response-writer.ts';
import { createRequestDecoder, type RequestDecoder } from './decode-request.ts';
import { requireJsonContent } from './json-content.ts';
import { cursorOf, isResumable, resumeAfter } from './log-cursor.ts';
import { isRefusal, refusal } from './refusal.ts';
import { createUnaryRenderer, type UnaryRenderer } from './render-unary.ts';
import { createRouteTable, type RestRoute, routesOf } from './route-table.ts';
import { serveStream } from './serve-stream.ts';
import {
  createEventStreamFormat,
  createLogTextFormat,
  createNdjsonFormat,
  type StreamFormat,
} from './stream-format.ts';

interface PreparedRoute extends RestRoute {
  call: LocalCall;
  decode: RequestDecoder;
  /** Undefined: the method streams. */
  render: UnaryRenderer | undefined;
  rendering: Rest_Rendering;
}

/**
 * Serves the paths that the schema's google.api.http annotations declare, for every service alike; answers false, and
 * leaves the request alone, for other paths. Each call goes through the gate and the interceptors of gRPC and Connect calls
 * and ends in the same code.
 */
export function createRestHandler(implemented: readonly ImplementedService[], options: CallOptions): TryHandler {
  const { bodies, gate, limits, logger, observe, shutdownSignal } = options;
  const table = createRouteTable(
    implemented.flatMap(({ service, implementation }) =>
      service.methods.flatMap((method) => prepare(method, implementation, options.interceptors)),
    ),
  );

  return (request, response) => {
    const path = pathOf(request);
    const match = table.find(request.method ?? '', path);
    if (match === undefined) return false;
    if ('allowed' in match) {
      const wrongMethod = new ConnectError(`${path} does not take ${request.method}`, Code.Unimplemented);
      sendError(response, wrongMethod, { status: 405, headers: { allow: match.allowed.join(', ') } });
    } else settle(serve(match.route, match.pathValues, request, response), response, logger);
    return true;
  };

  async function serve(
    route: PreparedRoute,
    pathValues: Map<string, string>,
    request: HttpRequest,
    response: HttpResponse,
  ): Promise<void> {
    let context: CallContext | undefined;
    try {
      context = createCallContext(route.method, request, response, {
        protocolName: 'rest',
        timeout: (header) => parseTimeout(header.get('connect-timeout-ms'), limits.maxTimeoutMs),
        shutdownSignal,
      });
      await gate(context);
      const message = await decodeObserved(route.method, observe, async () => {
        const body = route.body === '' ? NO_BODY : await readJsonBody(request);
        return route.decode({ pathValues, query: queryOf(request), body });
      });
      await answer(route, message, request, response, context);
    } catch (error) {
      refuse(error, route, response, context);
    } finally {
      context?.end();
    }
  }

  async function readJsonBody(request: HttpRequest): Promise<Buffer> {
    const body = await readBody(request, limits.maxRequestBytes, bodies).catch((error: ConnectError) => {
      if (error.code === Code.ResourceExhausted && !error.metadata.has('retry-after')) throw refusal(413, error);
      throw error;
    });
    // `curl -X POST` without data declares a form.
    if (body.length > 0) requireJsonContent(request);
    return body;
  }

  async function answer(
    route: PreparedRoute,
    message: Message,
    request: HttpRequest,
    response: HttpResponse,
    context: CallContext,
  ): Promise<void> {
    if (route.render !== undefined) {
      route.render(await route.call.unary(message, context), response, context);
      return;
    }
    const lastEventId = context.requestHeader.get('last-event-id');
    if (lastEventId !== null && isResumable(route.method.input)) resumeAfter(message, lastEventId);
    const format = chooseFormat(route, message, request);
    await serveStream(response, route.call.stream(message, context), format, context);
  }

  function refuse(
    error: unknown,
    route: PreparedRoute,
    response: HttpResponse,
    context: CallContext | undefined,
  ): void {
    const method = methodNameOf(route.method);
    // Too late to say anything, or nobody to say it to.
    if (response.headersSent || response.destroyed) {
      logger.debug({ err: error, method }, 'response was not delivered');
      breakOff(response);
    } else if (isRefusal(error)) {
      sendError(response, error, { status: error.status });
    } else {
      const connectError = toConnectError(error, { method, signal: context?.signal }, logger);
      sendError(response, connectError, { headers: headersOf(context?.responseHeader) });
    }
  }
}

const NO_BODY = Buffer.alloc(0);

function prepare(method: DescMethod, implementation: object, interceptors: Interceptor[]): PreparedRoute[] {
  const routes = routesOf(method);
  if (routes.length === 0) return [];
  if (method.methodKind !== 'unary' && method.methodKind !== 'server_streaming') {
    throw new Error(`${method.name}: a ${method.methodKind} method has no REST form`);
  }
  const call = createLocalCall(method, implementation, interceptors);
  const rendering = getOption(method, rest_rendering);
  return routes.map((route) => ({
    ...route,
    call,
    rendering,
    decode: createRequestDecoder(route),
    render: method.methodKind === 'unary' ? createUnaryRenderer(route, rendering) : undefined,
  }));
}

function chooseFormat(route: PreparedRoute, message: Message, request: HttpRequest): StreamFormat {
  const schema = route.method.output;
  if (request.headers.accept?.includes('text/event-stream')) {
    return createEventStreamFormat(schema, isResumable(route.method.input) ? cursorOf(message) : undefined);
  }
  return route.rendering === Rest_Rendering.LOG_TEXT ? createLogTextFormat(schema) : createNdjsonFormat(schema);
}
