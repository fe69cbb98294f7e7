import { Code, ConnectError, type Interceptor } from '@connectrpc/connect';
import { codeToString } from '@connectrpc/connect/protocol-connect';
import { methodNameOf } from './method-name.ts';
import { traceParentOf } from './tracing.ts';

/**
 * Told once per call when it has ended; `code` is `ok` or the name of a Connect code. A stream ends with its last message.
 * @param traceParent place of the call in a trace; empty: none
 */
export type Observe = (method: string, code: string, seconds: number, traceParent?: string) => void;

/**
 * Must be outside the error mapping, so that it sees the code that the caller sees. Calls that the access gate refuses are
 * told by the gate, and unary and REST calls whose body cannot be decoded by `decodeObserved`; a stream that Connect's own
 * handlers cannot decode is not told.
 */
export function createRpcMetrics(observe: Observe): Interceptor {
  return (next) => async (request) => {
    const startedMs = performance.now();
    const finish = (error?: unknown) => {
      const code = error === undefined ? 'ok' : codeToString(ConnectError.from(error).code);
      observe(methodNameOf(request.method), code, (performance.now() - startedMs) / 1000, traceParentOf(request));
    };
    try {
      const response = await next(request);
      if (response.stream) return { ...response, message: observeStream(response.message, request.signal, finish) };
      finish();
      return response;
    } catch (error) {
      finish(error);
      throw error;
    }
  };
}

async function* observeStream<T>(
  messages: AsyncIterable<T>,
  signal: AbortSignal,
  finish: (error?: unknown) => void,
): AsyncGenerator<T> {
  let error: unknown;
  let ended = false;
  try {
    yield* messages;
    ended = true;
  } catch (thrown) {
    error = thrown;
    throw thrown;
  } finally {
    // Neither ended nor thrown: the reader stopped reading, which is how a caller that goes away shows.
    finish(ended ? undefined : (error ?? signal.reason ?? new ConnectError('the caller went away', Code.Canceled)));
  }
}
