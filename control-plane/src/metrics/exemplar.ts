import { parseTraceParent } from '@harrier/shared';

/** What leads from a figure to a trace; nothing for a trace that nobody keeps. */
export function exemplarOf(traceParent: string | undefined): Record<string, string> {
  const place = parseTraceParent(traceParent);
  return place?.sampled ? { trace_id: place.traceId } : {};
}
