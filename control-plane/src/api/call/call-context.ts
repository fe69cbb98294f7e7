import type { DescMethod } from '@bufbuild/protobuf';
import { Code, ConnectError, createContextValues, type HandlerContext } from '@connectrpc/connect';
import { type HttpRequest, type HttpResponse, headersFrom, onGone } from '../http-types.ts';

export interface CallContext extends HandlerContext {
  /** Ends the call: its timer and listeners go, its signal aborts. Must be called once, also when it succeeded. */
  end(): void;
}

/** As Connect parses the header of a deadline. */
export interface ParsedTimeout {
  timeoutMs?: number | undefined;
  error?: ConnectError | undefined;
}

export interface CallContextOptions {
  protocolName: string;
  /** Parses the deadline out of the headers. */
  timeout(header: Headers): ParsedTimeout;
  shutdownSignal: AbortSignal | undefined;
}

/** Made once: aborting without a reason makes an exception, with its stack, for each call. */
const ENDED = new ConnectError('the call has ended', Code.Canceled);

/**
 * The context of one call that Connect's own handlers do not serve. Its signal aborts when the deadline passes, the caller
 * goes away, or the process stops. Throws `invalid_argument` on a deadline that cannot be had.
 */
export function createCallContext(
  method: DescMethod,
  request: HttpRequest,
  response: HttpResponse,
  options: CallContextOptions,
): CallContext {
  const requestHeader = headersFrom(request);
  const { timeoutMs, error } = options.timeout(requestHeader);
  if (error !== undefined) throw error;

  const controller = new AbortController();
  const { shutdownSignal } = options;
  const onShutdown = () => controller.abort(shutdownSignal?.reason);
  if (shutdownSignal?.aborted) onShutdown();
  shutdownSignal?.addEventListener('abort', onShutdown);
  onGone(response, () => controller.abort(new ConnectError('the caller went away', Code.Canceled)));
  const deadlineMs = timeoutMs === undefined ? undefined : performance.now() + timeoutMs;
  const timer = setTimeoutUnless(timeoutMs, () => {
    controller.abort(new ConnectError('the deadline of the call has passed', Code.DeadlineExceeded));
  });

  return {
    method,
    service: method.parent,
    signal: controller.signal,
    timeoutMs: () => (deadlineMs === undefined ? undefined : deadlineMs - performance.now()),
    requestMethod: request.method ?? '',
    requestHeader,
    responseHeader: new Headers(),
    responseTrailer: new Headers(),
    protocolName: options.protocolName,
    values: createContextValues(),
    url: request.url ?? '',
    end() {
      clearTimeout(timer);
      shutdownSignal?.removeEventListener('abort', onShutdown);
      controller.abort(ENDED);
    },
  };
}

function setTimeoutUnless(ms: number | undefined, callback: () => void): NodeJS.Timeout | undefined {
  return ms === undefined ? undefined : setTimeout(callback, ms);
}
