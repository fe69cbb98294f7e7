import type { MetricsRegistry } from '@harrier/shared/metrics/exposition';
import { Counter, Gauge, Histogram } from 'prom-client';

/** From an answer of an idle engine to the pull of a large image, in seconds. */
const API_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900];

type ServiceLabels = 'service' | 'environment';

/** What the agent does for its services; the names are a contract with dashboards and alerts. */
export class ServiceMetrics {
  readonly #environment: string;
  readonly #starts: Counter<ServiceLabels>;
  readonly #stops: Counter<ServiceLabels>;
  readonly #api: Histogram<ServiceLabels | 'operation'>;

  /** @param running every service by name, and whether it runs; read when Prometheus asks */
  constructor(registry: MetricsRegistry, environment: string, running: () => ReadonlyMap<string, boolean>) {
    this.#environment = environment;
    const registers = [registry];
    const labelNames = ['service', 'environment'] as const;
    this.#starts = new Counter({
      name: 'harrier_agent_service_starts_total',
      help: 'Times that this agent started the container of a service.',
      labelNames,
      registers,
    });
    this.#stops = new Counter({
      name: 'harrier_agent_service_stops_total',
      help: 'Times that the container of a service ended, by itself or by the agent.',
      labelNames,
      registers,
    });
    this.#api = new Histogram({
      name: 'harrier_agent_docker_api_duration_seconds',
      help: 'Time that the Docker engine took for a request that was made for a service.',
      labelNames: [...labelNames, 'operation'],
      buckets: API_BUCKETS,
      registers,
    });
    new Gauge({
      name: 'harrier_agent_active_services',
      help: 'Whether the container of a service runs now; the sum is how many do.',
      labelNames,
      registers,
      collect() {
        this.reset();
        for (const [service, runs] of running()) this.set({ service, environment }, Number(runs));
      },
    });
  }

  onStarted(service: string): void {
    this.#starts.inc({ service, environment: this.#environment });
  }

  onStopped(service: string): void {
    this.#stops.inc({ service, environment: this.#environment });
  }

  onEngineCall({ operation, service, durationMs }: { operation: string; service: string; durationMs: number }): void {
    this.#api.observe({ service, environment: this.#environment, operation }, durationMs / 1000);
  }
}
