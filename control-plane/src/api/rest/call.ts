import type { DescMethod, Message } from '@bufbuild/protobuf';
import {
  Code,
  ConnectError,
  createHandlerContext,
  createMethodImplSpec,
  type Interceptor,
  type MethodImpl,
} from '@connectrpc/connect';
import {
  createAsyncIterable,
  invokeUnaryImplementation,
  transformInvokeImplementation,
} from '@connectrpc/connect/protocol';
import { parseTimeout } from '@connectrpc/connect/protocol-connect';
import { type HttpRequest, type HttpResponse, headersFrom, onGone } from '../http-types.ts';

export type CallContext = ReturnType<typeof createHandlerContext>;

/** One method, called in the process through the interceptors that gRPC and Connect calls go through. */
export interface RestCall {
  unary(request: Message, context: CallContext): Promise<Message>;
  stream(request: Message, context: CallContext): AsyncIterable<Message>;
}

export function createRestCall(
  method: DescMethod,
  implementation: MethodImpl<DescMethod>,
  interceptors: Interceptor[],
): RestCall {
  const spec = createMethodImplSpec(method, implementation);
  return {
    unary(request, context) {
      if (spec.kind !== 'unary') throw new Error(`${method.name} is not unary`);
      return invokeUnaryImplementation(spec, context, request, interceptors);
    },
    stream: (request, context) =>
      transformInvokeImplementation(spec, context, interceptors)(createAsyncIterable([request])),
  };
}

/**
 * The context of one call. Its signal aborts when the deadline of `Connect-Timeout-Ms` passes, the caller goes away, or
 * the process stops. Throws `invalid_argument` on a deadline that cannot be had. The owner must call its `abort`.
 */
export function createCallContext(
  method: DescMethod,
  request: HttpRequest,
  response: HttpResponse,
  options: { maxTimeoutMs: number; shutdownSignal: AbortSignal | undefined },
): CallContext {
  const requestHeader = headersFrom(request);
  const timeout = parseTimeout(requestHeader.get('connect-timeout-ms'), options.maxTimeoutMs);
  if (timeout.error !== undefined) throw timeout.error;
  const gone = new AbortController();
  onGone(response, () => gone.abort(new ConnectError('the caller went away', Code.Canceled)));
  return createHandlerContext({
    service: method.parent,
    method,
    protocolName: 'rest',
    requestMethod: request.method ?? '',
    url: request.url ?? '',
    requestHeader,
    requestSignal: gone.signal,
    ...(timeout.timeoutMs === undefined ? {} : { timeoutMs: timeout.timeoutMs }),
    ...(options.shutdownSignal === undefined ? {} : { shutdownSignal: options.shutdownSignal }),
  });
}
