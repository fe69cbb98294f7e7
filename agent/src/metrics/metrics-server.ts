import type { HostPort } from '@harrier/shared';
import { Exposition, type MetricsRegistry } from '@harrier/shared/metrics/exposition';
import { type MetricsServer, serveMetrics as serve } from '@harrier/shared/metrics/metrics-server';

export interface Health {
  /** Why the agent cannot work now; empty when it can. */
  problems: string[];
  /** Facts for people. */
  details: Readonly<Record<string, unknown>>;
}

/**
 * Serves `/metrics` for Prometheus and `/healthz` for service managers: 200 while the agent can work, else 503 with why.
 * @param token needed for `/metrics`; undefined: none
 * @throws HarrierError failed_precondition, when the address cannot be had
 */
export async function serveMetrics(
  listen: HostPort,
  registry: MetricsRegistry,
  health: () => Health,
  token?: string,
): Promise<MetricsServer> {
  const exposition = new Exposition(registry);
  return await serve({
    listen,
    setting: 'HARRIER_AGENT_METRICS_LISTEN',
    token,
    routes: {
      '/metrics': { answer: ({ headers }) => exposition.render(headers.accept) },
      '/healthz': { open: true, answer: () => healthAnswer(health()) },
    },
  });
}

function healthAnswer({ problems, details }: Health) {
  const isWell = problems.length === 0;
  const body = { status: isWell ? 'ok' : 'unavailable', problems, ...details };
  return { status: isWell ? 200 : 503, contentType: 'application/json', body: `${JSON.stringify(body)}\n` };
}
