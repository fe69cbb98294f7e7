import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { formatHostPort, HarrierError, type HostPort, messageOf } from '@harrier/shared';
import type { Registry } from 'prom-client';

/** A scrape or a probe is small and quick; a connection that is neither is dropped. */
const REQUEST_TIMEOUT_MS = 10_000;

export interface Health {
  /** Why the agent cannot work now; empty when it can. */
  problems: string[];
  /** Facts for people. */
  details: Readonly<Record<string, unknown>>;
}

export interface MetricsServer {
  address: HostPort;
  close(): Promise<void>;
}

/**
 * Serves `/metrics` for Prometheus and `/healthz` for service managers: 200 while the agent can work, else 503 with why.
 * @throws HarrierError failed_precondition, when the address cannot be had
 */
export async function serveMetrics(listen: HostPort, registry: Registry, health: () => Health): Promise<MetricsServer> {
  const server = createServer((request, response) => {
    const path = request.url?.split('?', 1)[0];
    if (request.method !== 'GET' && request.method !== 'HEAD') answer(response, 405, 'text/plain', 'GET only\n');
    else if (path === '/metrics') void answerMetrics(response, registry);
    else if (path === '/healthz') answerHealth(response, health());
    else answer(response, 404, 'text/plain', 'there are /metrics and /healthz\n');
  });
  server.requestTimeout = REQUEST_TIMEOUT_MS;
  server.headersTimeout = REQUEST_TIMEOUT_MS;
  await listening(server, listen);
  return {
    address: { host: listen.host, port: (server.address() as AddressInfo).port },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function listening(server: Server, { host, port }: HostPort): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      const message = `HARRIER_AGENT_METRICS_LISTEN: ${formatHostPort({ host, port })} cannot be had: ${messageOf(cause)}`;
      reject(new HarrierError('failed_precondition', message, { cause }));
    });
    server.listen(port, host, () => resolve());
  });
}

async function answerMetrics(response: ServerResponse, registry: Registry): Promise<void> {
  try {
    answer(response, 200, registry.contentType, await registry.metrics());
  } catch (error) {
    answer(response, 500, 'text/plain', `${messageOf(error)}\n`);
  }
}

function answerHealth(response: ServerResponse, { problems, details }: Health): void {
  const body = { status: problems.length === 0 ? 'ok' : 'unavailable', problems, ...details };
  answer(response, problems.length === 0 ? 200 : 503, 'application/json', `${JSON.stringify(body)}\n`);
}

function answer(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' }).end(body);
}
