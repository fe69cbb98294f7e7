import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { HttpHandler, HttpResponse } from '../http-types.ts';
import type { ListenerLimits } from './limits.ts';

export type UpgradeHandler = (request: IncomingMessage, socket: Duplex, head: Buffer) => void;

/** The HTTP/1.1 half of a listener: it never listens itself, sockets are handed to it. */
export interface Http1Server {
  accept(socket: Duplex): void;
  /** Answers what is in flight, takes no further request on any connection, closes what is idle. */
  drain(): void;
}

export function createHttp1Server(
  handler: HttpHandler,
  upgrade: UpgradeHandler | undefined,
  limits: ListenerLimits,
): Http1Server {
  const inFlight = new Set<ServerResponse>();
  let draining = false;

  const server = createServer(
    {
      keepAliveTimeout: limits.keepAliveTimeoutMs,
      headersTimeout: limits.headersTimeoutMs,
      requestTimeout: limits.requestTimeoutMs,
      connectionsCheckingInterval: Math.min(5_000, limits.headersTimeoutMs),
      maxHeaderSize: limits.maxHeaderBytes,
      // `curl --http2` asks every cleartext server to upgrade to h2c, which RFC 9113 dropped: such a request is answered
      // as HTTP/1.1.
      shouldUpgradeCallback: (request) =>
        upgrade !== undefined && request.headers.upgrade?.toLowerCase() === 'websocket',
    },
    (request, response) => {
      inFlight.add(response);
      if (draining) response.shouldKeepAlive = false;
      response.once('close', () => {
        inFlight.delete(response);
        if (draining) closeIdleSoon(server);
      });
      handler(request, response as HttpResponse);
    },
  );
  if (upgrade !== undefined) server.on('upgrade', upgrade);
  server.on('clientError', answerClientError);
  // Node starts the timers of the head and request limits when a server starts to listen, which this one never does.
  server.emit('listening');

  return {
    accept: (socket) => server.emit('connection', socket),
    drain() {
      draining = true;
      for (const response of inFlight) {
        if (!response.headersSent) response.shouldKeepAlive = false;
      }
      server.close();
    },
  };
}

/** A connection counts as idle only after the event that its response closed. */
function closeIdleSoon(server: Server): void {
  setImmediate(() => server.closeIdleConnections());
}

const CLIENT_ERRORS: Record<string, { status: string; code: string; message: string }> = {
  HPE_HEADER_OVERFLOW: {
    status: '431 Request Header Fields Too Large',
    code: 'resource_exhausted',
    message: 'the head of the request is too large',
  },
  ERR_HTTP_REQUEST_TIMEOUT: {
    status: '408 Request Timeout',
    code: 'deadline_exceeded',
    message: 'the request did not arrive in time',
  },
};

function answerClientError(error: NodeJS.ErrnoException & { reason?: string }, socket: Duplex): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const answer = CLIENT_ERRORS[error.code ?? ''] ?? {
    status: '400 Bad Request',
    code: 'invalid_argument',
    message: `the request is not HTTP: ${error.reason ?? error.message}`,
  };
  const body = JSON.stringify({ code: answer.code, message: answer.message });
  socket.end(
    `HTTP/1.1 ${answer.status}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n` +
      `Connection: close\r\n\r\n${body}`,
  );
}
