import type { Logger } from '../logger.ts';
import { NO_TRACING, type Tracing } from './tracing.ts';
import type { TracingSettings } from './tracing-settings.ts';

/**
 * @param settings undefined: nothing is collected, and nothing of OpenTelemetry is loaded, which would take some MiB
 * @param service name of the process, where the settings have none
 */
export async function openTracing(
  settings: TracingSettings | undefined,
  service: string,
  logger: Logger,
): Promise<Tracing> {
  if (settings === undefined) return NO_TRACING;
  const { createOtlpTracing } = await import('./otlp-tracing.ts');
  return createOtlpTracing(settings, service, logger);
}
