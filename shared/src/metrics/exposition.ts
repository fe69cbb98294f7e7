import { type Metric, type OpenMetricsContentType, type PrometheusContentType, Registry } from 'prom-client';

/** The client library takes exemplars only for a registry that is one of OpenMetrics when they are registered. */
export type MetricsRegistry = Registry<OpenMetricsContentType>;

export function createRegistry(): MetricsRegistry {
  const registry = new Registry<OpenMetricsContentType>();
  registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
  return registry;
}

/** A page of metrics. */
export interface MetricsPage {
  contentType: string;
  body: string;
}

/**
 * A registry as Prometheus reads it: in the text format that every tool knows, or as OpenMetrics, which alone has exemplars,
 * for whoever asks for it.
 */
export class Exposition {
  readonly #registry: MetricsRegistry;
  /** The library keeps the format in the registry: one page is written at a time. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(registry: MetricsRegistry) {
    this.#registry = registry;
  }

  /** @param accept header of the request */
  async render(accept?: string): Promise<MetricsPage> {
    const write = () => (accept?.includes('application/openmetrics-text') ? this.#openMetrics() : this.#text());
    const page = this.#turn.then(write, write);
    this.#turn = page.catch(() => undefined);
    return await page;
  }

  async #openMetrics(): Promise<MetricsPage> {
    // The library takes `_total` off the names of counters, for good.
    const metrics = this.#registry.getMetricsAsArray() as unknown as (Metric & { name: string })[];
    const names = metrics.map(({ name }) => name);
    try {
      return { contentType: Registry.OPENMETRICS_CONTENT_TYPE, body: await this.#registry.metrics() };
    } finally {
      for (const [i, metric] of metrics.entries()) metric.name = names[i] ?? metric.name;
    }
  }

  async #text(): Promise<MetricsPage> {
    const registry = this.#registry as unknown as Registry<PrometheusContentType>;
    registry.setContentType(Registry.PROMETHEUS_CONTENT_TYPE);
    try {
      return { contentType: Registry.PROMETHEUS_CONTENT_TYPE, body: await registry.metrics() };
    } finally {
      this.#registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
    }
  }
}
