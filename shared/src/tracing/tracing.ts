import { formatTraceParent, parseTraceParent } from './trace-parent.ts';

export type SpanAttributes = Readonly<Record<string, string | number | boolean>>;

export interface SpanOptions {
  /** `traceparent` of the span that it belongs to; what is none, or empty: it begins a trace. */
  parent: string | null | undefined;
  /** `server`: answers a call; `consumer`: takes work up that was queued. Default: a step inside a process. */
  kind?: 'internal' | 'server' | 'consumer';
  attributes?: SpanAttributes;
  /** Default: now. */
  startTime?: Date;
}

/** A piece of work in a trace. */
export interface Span {
  /** What is told to whoever does a part of it; empty: there is no trace. */
  readonly traceParent: string;
  set(attributes: SpanAttributes): void;
  /** To be called once; what was not ended is not told to anybody. @param error why it failed; absent: it did not */
  end(how?: { error?: string | undefined; endTime?: Date }): void;
}

/** Tells spans to whoever collects them. */
export interface Tracing {
  /** Whether anything is collected: where not, no work should be spent on what spans say. */
  readonly enabled: boolean;
  start(name: string, options: SpanOptions): Span;
  /** Sends what has ended. Nothing may be started any more. Never rejects. */
  stop(): Promise<void>;
}

/** Collects nothing, and hands the place in a trace on as it came. */
export const NO_TRACING: Tracing = {
  enabled: false,
  start: (_name, { parent }) => {
    const place = parseTraceParent(parent);
    return passing(place === undefined ? '' : formatTraceParent(place));
  },
  stop: async () => {},
};

function passing(traceParent: string): Span {
  return { traceParent, set: () => {}, end: () => {} };
}
