import { Code, ConnectError, type ContextValues, createContextKey, type Interceptor } from '@connectrpc/connect';
import type { Span, Tracing } from '@harrier/shared';
import { methodNameOf } from './method-name.ts';

const HEADER = 'traceparent';

/** The span of the call; undefined where calls are not traced. */
const spanKey = createContextKey<Span | undefined>(undefined, { description: 'span' });

interface Call {
  contextValues: ContextValues;
  header: Headers;
}

/** The span of the call where calls are traced, else what its caller sent as `traceparent`; empty: nothing. */
export function traceParentOf({ contextValues, header }: Call): string {
  return contextValues.get(spanKey)?.traceParent ?? header.get(HEADER) ?? '';
}

/** Says in the span of the call which execution it is about. */
export function traceExecution(contextValues: ContextValues, id: string): void {
  contextValues.get(spanKey)?.set({ 'harrier.execution.id': id });
}

/** A span for each call, in the trace of its caller. Must be outside the metrics, whose exemplars lead to it. */
export function createCallTracing(tracing: Tracing): Interceptor {
  return (next) => async (request) => {
    const name = methodNameOf(request.method);
    const span = tracing.start(name, {
      parent: request.header.get(HEADER),
      kind: 'server',
      // https://opentelemetry.io/docs/specs/semconv/rpc/connect-rpc/
      attributes: {
        'rpc.system': 'connect_rpc',
        'rpc.service': request.method.parent.typeName,
        'rpc.method': request.method.name,
      },
    });
    request.contextValues.set(spanKey, span);
    try {
      const response = await next(request);
      if (response.stream) return { ...response, message: traced(response.message, span) };
      span.end();
      return response;
    } catch (error) {
      fail(span, error);
      throw error;
    }
  };
}

async function* traced<T>(messages: AsyncIterable<T>, span: Span): AsyncGenerator<T> {
  let error: unknown = new ConnectError('the caller went away', Code.Canceled);
  try {
    yield* messages;
    error = undefined;
  } catch (thrown) {
    error = thrown;
    throw thrown;
  } finally {
    if (error === undefined) span.end();
    else fail(span, error);
  }
}

function fail(span: Span, error: unknown): void {
  const { code, rawMessage } = ConnectError.from(error);
  span.set({ 'rpc.connect_rpc.error_code': Code[code] ?? String(code) });
  span.end({ error: rawMessage });
}
