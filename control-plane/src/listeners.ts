import type { AddressInfo } from 'node:net';
import type { HostPort, Logger } from '@harrier/shared';
import { type MetricsServer, serveMetrics } from '@harrier/shared/metrics/metrics-server';
import type { HttpHandler } from './api/http-types.ts';
import { createListener, type ListenerOptions } from './api/listener/listener.ts';
import type { Config } from './config.ts';
import type { Metrics } from './metrics/metrics.ts';

export interface ListenersOptions {
  config: Config;
  handler: HttpHandler;
  /** Links of agents. */
  upgrade: ListenerOptions['upgrade'];
  metrics: Metrics;
  /** What Prometheus scrapes, as JSON of its service discovery. */
  targets: () => Promise<string>;
  logger: Logger;
}

/** What of this process can be reached from outside. */
export interface Listeners {
  address: AddressInfo;
  grpcAddress: AddressInfo | undefined;
  metricsAddress: HostPort;
  /** Ends the connections of callers; those with calls in flight after `graceMs`. */
  close(graceMs: number): Promise<void>;
  /** Metrics can be read until the end. */
  closeMetrics(): Promise<void>;
}

/**
 * Opens the ports of the API, of gRPC alone where there is one, and of the metrics.
 * @throws HarrierError when an address cannot be had
 */
export async function openListeners(options: ListenersOptions): Promise<Listeners> {
  const { config, handler, upgrade, metrics, targets, logger } = options;
  const { tls } = config;
  const listener = createListener({ ...config.listen, tls, handler, upgrade, logger });
  const grpcListener =
    config.grpcListen === undefined
      ? undefined
      : createListener({ ...config.grpcListen, tls, handler, grpcOnly: true, logger });
  const address = await listener.listen();
  const grpcAddress = await grpcListener?.listen();
  const metricsServer: MetricsServer = await serveMetrics({
    listen: config.metricsListen,
    setting: 'HARRIER_METRICS_LISTEN',
    token: config.metricsToken,
    routes: {
      '/metrics': { answer: ({ headers }) => metrics.render(headers.accept) },
      '/metrics/targets': {
        answer: async () => ({ contentType: 'application/json', body: await targets() }),
      },
    },
  });
  return {
    address,
    grpcAddress,
    metricsAddress: metricsServer.address,
    close: async (graceMs) => {
      await Promise.all([listener.close(graceMs), grpcListener?.close(graceMs)]);
    },
    closeMetrics: () => metricsServer.close(),
  };
}
