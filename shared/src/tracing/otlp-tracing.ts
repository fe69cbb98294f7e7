import { DiagLogLevel, diag, ROOT_CONTEXT, SpanKind, SpanStatusCode, TraceFlags, trace } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import { resourceFromAttributes } from '@opentelemetry/resources';
import {
  BatchSpanProcessor,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace';
import { messageOf } from '../errors.ts';
import type { Logger } from '../logger.ts';
import { VERSION } from '../version.ts';
import { formatTraceParent, parseTraceParent } from './trace-parent.ts';
import type { Span, Tracing } from './tracing.ts';
import type { Sampler, TracingSettings } from './tracing-settings.ts';

/** A collector that does not answer delays a stop only so long. */
const STOP_MS = 3_000;
const KINDS = { internal: SpanKind.INTERNAL, server: SpanKind.SERVER, consumer: SpanKind.CONSUMER } as const;

/** Sends spans by OTLP. What the collector does not take in time is dropped, and told once in the log: calls do not wait. */
export function createOtlpTracing(settings: TracingSettings, service: string, logger: Logger): Tracing {
  tellProblems(logger);
  const { url, headers, timeoutMs, delayMs, serviceName, resource } = settings;
  const exporter = new OTLPTraceExporter({ url, headers: { ...headers }, timeoutMillis: timeoutMs });
  const provider = new TracerProvider({
    resource: resourceFromAttributes({
      ...resource,
      'service.name': serviceName ?? resource['service.name'] ?? service,
      'service.version': VERSION,
    }),
    sampler: samplerOf(settings.sampler),
    spanProcessors: [new BatchSpanProcessor({ exporter, scheduledDelayMillis: delayMs })],
  });
  const tracer = provider.getTracer('harrier', VERSION);
  return {
    enabled: true,
    start: (name, { parent, kind = 'internal', attributes, startTime }) => {
      const place = parseTraceParent(parent);
      const context =
        place === undefined
          ? ROOT_CONTEXT
          : trace.setSpanContext(ROOT_CONTEXT, {
              traceId: place.traceId,
              spanId: place.spanId,
              traceFlags: place.sampled ? TraceFlags.SAMPLED : TraceFlags.NONE,
              isRemote: true,
            });
      const options = {
        kind: KINDS[kind],
        ...(attributes === undefined ? {} : { attributes }),
        ...(startTime === undefined ? {} : { startTime }),
      };
      return spanOf(tracer.startSpan(name, options, context));
    },
    stop: async () => {
      const late = new Promise((resolve) => setTimeout(resolve, STOP_MS).unref());
      await Promise.race([provider.shutdown(), late]).catch((error: unknown) =>
        logger.warn({ reason: messageOf(error) }, 'the last spans could not be sent'),
      );
    },
  };
}

function spanOf(span: ReturnType<ReturnType<TracerProvider['getTracer']>['startSpan']>): Span {
  const { traceId, spanId, traceFlags } = span.spanContext();
  return {
    traceParent: formatTraceParent({ traceId, spanId, sampled: (traceFlags & TraceFlags.SAMPLED) !== 0 }),
    set: (attributes) => span.setAttributes(attributes),
    end: ({ error, endTime } = {}) => {
      if (error !== undefined) span.setStatus({ code: SpanStatusCode.ERROR, message: error });
      span.end(endTime);
    },
  };
}

function samplerOf({ ratio, followsParent }: Sampler) {
  const root = new TraceIdRatioBasedSampler(ratio);
  return followsParent ? new ParentBasedSampler({ root }) : root;
}

/** What the library has to say of a collector that cannot be reached: when that begins, not for each batch. */
function tellProblems(logger: Logger): void {
  let told: string | undefined;
  const warn = (reason: string) => {
    if (reason === told) return;
    told = reason;
    logger.warn({ reason }, 'spans could not be sent');
  };
  const ignore = () => {};
  const sink = { error: warn, warn, info: ignore, debug: ignore, verbose: ignore };
  diag.setLogger(sink, { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true });
}
