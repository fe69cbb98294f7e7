import { createHash, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { HarrierError, messageOf } from '../errors.ts';
import { formatHostPort, type HostPort } from '../settings.ts';

/** A scrape or a probe is small and quick; a connection that is neither is dropped. */
const REQUEST_TIMEOUT_MS = 10_000;

export interface MetricsAnswer {
  status?: number;
  contentType: string;
  body: string;
}

export interface MetricsRoute {
  /** Answered without the token too. */
  open?: true;
  answer: (request: IncomingMessage) => MetricsAnswer | Promise<MetricsAnswer>;
}

export interface MetricsServerOptions {
  listen: HostPort;
  /** Name of the setting that `listen` comes from, for people. */
  setting: string;
  /** What a request must bring as `Authorization: Bearer …`; undefined: nothing. */
  token: string | undefined;
  /** By path. */
  routes: Readonly<Record<string, MetricsRoute>>;
}

export interface MetricsServer {
  address: HostPort;
  close(): Promise<void>;
}

/**
 * Serves what Prometheus and service managers ask for, on a port of its own, so that it need not be as open as the API.
 * @throws HarrierError failed_precondition, when the address cannot be had
 */
export async function serveMetrics(options: MetricsServerOptions): Promise<MetricsServer> {
  const { listen } = options;
  const server = createServer((request, response) => {
    answer(options, request).then(
      ({ status = 200, contentType, body }) => send(response, status, contentType, body),
      (error: unknown) => send(response, 503, 'text/plain', `${messageOf(error)}\n`),
    );
  });
  server.requestTimeout = REQUEST_TIMEOUT_MS;
  server.headersTimeout = REQUEST_TIMEOUT_MS;
  await listening(server, options);
  return {
    address: { host: listen.host, port: (server.address() as AddressInfo).port },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answer({ token, routes }: MetricsServerOptions, request: IncomingMessage): Promise<MetricsAnswer> {
  const path = request.url?.split('?', 1)[0] ?? '';
  if (request.method !== 'GET' && request.method !== 'HEAD') return plain(405, 'GET only\n');
  const route = Object.hasOwn(routes, path) ? routes[path] : undefined;
  if (route === undefined) return plain(404, `there are ${Object.keys(routes).join(', ')}\n`);
  if (token !== undefined && !route.open && !hasToken(request, token)) {
    return plain(401, 'the token of this listener is missing or wrong: send it as "Authorization: Bearer TOKEN"\n');
  }
  return await route.answer(request);
}

function plain(status: number, body: string): MetricsAnswer {
  return { status, contentType: 'text/plain', body };
}

/** Hashes are compared, so that the time tells nothing of the token. */
function hasToken({ headers }: IncomingMessage, token: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(headers.authorization ?? ''), digest(`Bearer ${token}`));
}

function listening(server: Server, { listen, setting }: MetricsServerOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      const message = `${setting}: ${formatHostPort(listen)} cannot be had: ${messageOf(cause)}`;
      reject(new HarrierError('failed_precondition', message, { cause }));
    });
    server.listen(listen.port, listen.host, () => resolve());
  });
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  const challenge = status === 401 ? { 'www-authenticate': 'Bearer' } : {};
  response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store', ...challenge }).end(body);
}
