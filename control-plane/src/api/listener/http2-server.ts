import { createServer, type ServerHttp2Session } from 'node:http2';
import type { Duplex } from 'node:stream';
import type { Logger } from '@harrier/shared';
import type { HttpHandler, HttpResponse } from '../http-types.ts';
import type { ListenerLimits } from './limits.ts';

/** The HTTP/2 half of a listener: it never listens itself, sockets are handed to it. */
export interface Http2Server {
  accept(socket: Duplex): void;
  /** Tells every client to go away, finishes what is in flight. */
  drain(): void;
}

/** A body of 8 MiB in a few round trips rather than in 128 of the protocol's default 64 KiB. */
const STREAM_WINDOW_BYTES = 1024 * 1024;
const CONNECTION_WINDOW_BYTES = 4 * 1024 * 1024;
/** Megabytes of frames that one session may hold; Node's default of 10 refuses streams once a single large body waits. */
const SESSION_MEMORY_MB = 64;

/** For a connection that was accepted while this process was about to stop. */
const LATE_SESSION_MS = 500;

export function createHttp2Server(handler: HttpHandler, limits: ListenerLimits, logger: Logger): Http2Server {
  const sessions = new Set<ServerHttp2Session>();
  let draining = false;

  const server = createServer(
    {
      maxSessionMemory: SESSION_MEMORY_MB,
      settings: {
        initialWindowSize: STREAM_WINDOW_BYTES,
        maxConcurrentStreams: limits.maxConcurrentStreams,
        maxHeaderListSize: limits.maxHeaderBytes,
        enablePush: false,
      },
    },
    (request, response) => handler(request, response as unknown as HttpResponse),
  );
  server.on('session', (session) => {
    sessions.add(session);
    session.once('close', () => sessions.delete(session));
    session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
    // Its first calls are on their way: they are answered, that this process stops, rather than refused without a reason.
    if (draining) setTimeout(() => session.close(), LATE_SESSION_MS).unref();
  });
  server.on('sessionError', (error) => logger.debug({ err: error }, 'HTTP/2 session failed'));

  return {
    accept: (socket) => server.emit('connection', socket),
    drain() {
      draining = true;
      for (const session of sessions) session.close();
    },
  };
}
