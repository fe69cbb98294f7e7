import { readFile } from 'node:fs/promises';
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { HarrierError, type Logger, messageOf } from '@harrier/shared';
import type { HttpHandler } from '../http-types.ts';
import { createHttp1Server, type UpgradeHandler } from './http1-server.ts';
import { createHttp2Server } from './http2-server.ts';
import { DEFAULT_LISTENER_LIMITS, type ListenerLimits } from './limits.ts';
import { sniffProtocol } from './protocol-sniffer.ts';

export interface ListenerOptions {
  host: string;
  /** 0 takes a free one. */
  port: number;
  /** PEM files. With them the listener speaks TLS only and chooses the protocol by ALPN. */
  tls?: { certFile: string; keyFile: string } | undefined;
  handler: HttpHandler;
  /** Requests to upgrade to WebSocket (HTTP/1.1 only); it owns the socket from then on. Absent: they are answered as plain requests. */
  upgrade?: UpgradeHandler | undefined;
  /** HTTP/2 only, for a port that serves nothing but gRPC. */
  grpcOnly?: boolean | undefined;
  limits?: Partial<ListenerLimits> | undefined;
  logger: Logger;
}

export interface Listener {
  /** Rejects when the address cannot be had or a TLS file cannot be used. Call once. */
  listen(): Promise<AddressInfo>;
  /**
   * Stops accepting, sends GOAWAY to HTTP/2 clients, closes idle connections, and lets what is in flight finish; after
   * `graceMs` destroys what is left. Resolves when no connection is open. May be called at any time and more than once.
   */
  close(graceMs: number): Promise<void>;
}

const HTTP_VERSION_NOT_SUPPORTED =
  'HTTP/1.1 505 HTTP Version Not Supported\r\nConnection: close\r\nContent-Length: 0\r\n\r\n';

/** One TCP port that speaks HTTP/1.1 and HTTP/2: without TLS told apart by the client's first bytes, with TLS by ALPN. */
export function createListener(options: ListenerOptions): Listener {
  const { logger, grpcOnly = false } = options;
  const limits = { ...DEFAULT_LISTENER_LIMITS, ...options.limits };
  const http1 = grpcOnly ? undefined : createHttp1Server(options.handler, options.upgrade, limits);
  const http2 = createHttp2Server(options.handler, limits, logger);
  const sockets = new Set<Socket>();
  // Cleartext connections that have not shown their protocol: nothing is in flight on them.
  const undecided = new Set<Socket>();
  let server: Server | undefined;
  let closed: Promise<void> | undefined;

  const acceptHttp1 = (socket: Socket) => {
    if (http1 === undefined) socket.end(HTTP_VERSION_NOT_SUPPORTED, () => socket.destroy());
    else http1.accept(socket);
  };
  const track = (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => {
      sockets.delete(socket);
      undecided.delete(socket);
    });
    socket.on('error', (error) => logger.debug({ err: error }, 'connection failed'));
  };
  const acceptClear = (socket: Socket) => {
    undecided.add(socket);
    sniffProtocol(socket, limits.firstBytesTimeoutMs, (protocol) => {
      undecided.delete(socket);
      if (protocol === 'http2') http2.accept(socket);
      else acceptHttp1(socket);
    });
  };
  const acceptTls = (socket: TLSSocket) => {
    socket.on('error', (error) => logger.debug({ err: error }, 'TLS connection failed'));
    if (socket.alpnProtocol === 'h2') http2.accept(socket);
    else acceptHttp1(socket);
  };

  const create = async (): Promise<Server> => {
    // The client of a small call waits for each packet: Nagle's algorithm would only delay it.
    const socketOptions = { noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000 };
    if (options.tls === undefined) return createTcpServer(socketOptions, acceptClear);
    const [cert, key] = await Promise.all([readPem(options.tls.certFile), readPem(options.tls.keyFile)]);
    const ALPNProtocols = grpcOnly ? ['h2'] : ['h2', 'http/1.1'];
    const tlsServer = createTlsServer(
      {
        ...socketOptions,
        cert,
        key,
        ALPNProtocols,
        minVersion: 'TLSv1.2',
        handshakeTimeout: limits.firstBytesTimeoutMs,
      },
      acceptTls,
    );
    tlsServer.on('tlsClientError', (error) => logger.debug({ err: error }, 'TLS handshake failed'));
    return tlsServer;
  };

  const shutDown = async (graceMs: number): Promise<void> => {
    const stopped = new Promise<void>((resolve) => {
      if (server === undefined) resolve();
      else server.close(() => resolve());
    });
    for (const socket of undecided) socket.destroy();
    http1?.drain();
    http2.drain();
    const timer = setTimeout(() => {
      for (const socket of sockets) socket.destroy();
    }, graceMs);
    await stopped;
    clearTimeout(timer);
  };

  return {
    async listen() {
      const created = await create();
      created.maxConnections = limits.maxConnections;
      created.prependListener('connection', track);
      await new Promise<void>((resolve, reject) => {
        created.once('error', reject);
        created.listen(options.port, options.host, () => {
          created.off('error', reject);
          resolve();
        });
      });
      created.on('error', (error) => logger.error({ err: error }, 'listener failed'));
      server = created;
      return created.address() as AddressInfo;
    },
    close(graceMs) {
      closed ??= shutDown(graceMs);
      return closed;
    },
  };
}

async function readPem(file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (error) {
    throw new HarrierError('failed_precondition', `cannot read the TLS file ${file}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}
