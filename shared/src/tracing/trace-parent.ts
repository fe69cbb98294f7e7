/** A place in a trace, as the header `traceparent` has it: https://www.w3.org/TR/trace-context/#traceparent-header */
export interface TraceParent {
  /** 32 hexadecimal digits. */
  traceId: string;
  /** 16 hexadecimal digits. */
  spanId: string;
  /** Whoever started the trace keeps it. */
  sampled: boolean;
}

const FORM =
  /^(?<version>[0-9a-f]{2})-(?<traceId>[0-9a-f]{32})-(?<spanId>[0-9a-f]{16})-(?<flags>[0-9a-f]{2})(?<more>-.*)?$/;
const NO_ID = /^0+$/;

/** Undefined for what is none: whoever receives that goes on as if it had come without one. */
export function parseTraceParent(text: string | null | undefined): TraceParent | undefined {
  const { version, traceId = '', spanId = '', flags = '', more } = FORM.exec(text ?? '')?.groups ?? {};
  if (version === undefined || version === 'ff' || NO_ID.test(traceId) || NO_ID.test(spanId)) return undefined;
  // Only versions to come may have more.
  if (version === '00' && more !== undefined) return undefined;
  return { traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1 };
}

/** As a header or a variable carries it. */
export function formatTraceParent({ traceId, spanId, sampled }: TraceParent): string {
  return `00-${traceId}-${spanId}-${sampled ? '01' : '00'}`;
}
