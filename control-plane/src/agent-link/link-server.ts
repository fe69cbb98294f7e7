import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { LINK_PATH, LINK_SUBPROTOCOL, type Logger, MAX_FRAME_BYTES } from '@harrier/shared';
import { Goodbye_Code as GoodbyeCode } from '@harrier/shared/gen/link';
import { WebSocketServer } from 'ws';
import type { Sql } from '../db/sql.ts';
import type { AgentRegistry } from './agent-registry.ts';
import { type AgentLinkEvents, AgentSession } from './agent-session.ts';
import type { LinkTraffic } from './link-traffic.ts';
import type { LeaseTerms } from './session-lease.ts';

export interface LinkServerOptions {
  sql: Sql;
  registry: AgentRegistry;
  events: AgentLinkEvents;
  logger: Logger;
  replicaId: string;
  leases: LeaseTerms;
  traffic: LinkTraffic;
}

export interface LinkServer {
  /** Takes over a socket that asked for an upgrade. */
  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
  /** The agent has a newer link, here or elsewhere: closes its older ones. */
  closeOlder(agentId: string, session: number): void;
  /** Number of the newest link of the agent that was recorded here and is still open, also while it is being admitted. */
  newestSession(agentId: string): number | undefined;
  /** Tells every agent to come back, to any replica. */
  sendAway(reason: string): void;
  /** Sends every agent away and takes no more links. What is left of leases is for the owner to tell the database. */
  close(): void;
}

export function createLinkServer(options: LinkServerOptions): LinkServer {
  const sessions = new Set<AgentSession>();
  const stopping = new AbortController();
  const sendAway = (reason: string) => {
    for (const session of sessions) session.close(GoodbyeCode.SHUTDOWN, reason);
  };
  const sockets = new WebSocketServer({
    noServer: true,
    // Compression would cost about 256 KiB a connection and time on bytes that are mostly small.
    perMessageDeflate: false,
    maxPayload: MAX_FRAME_BYTES,
    handleProtocols: (protocols) => (protocols.has(LINK_SUBPROTOCOL) ? LINK_SUBPROTOCOL : false),
  });
  return {
    handleUpgrade(request, socket, head) {
      const path = request.url?.split('?', 1)[0];
      if (path !== LINK_PATH) return refuse(socket, '404 Not Found', `there is no WebSocket at ${path}`);
      const offered = (request.headers['sec-websocket-protocol'] ?? '').split(',').map((name) => name.trim());
      if (!offered.includes(LINK_SUBPROTOCOL)) {
        return refuse(socket, '400 Bad Request', `the WebSocket subprotocol must be ${LINK_SUBPROTOCOL}`);
      }
      sockets.handleUpgrade(request, socket, head, (webSocket) => {
        const session = new AgentSession({ ...options, socket: webSocket, stopping: stopping.signal });
        sessions.add(session);
        webSocket.on('close', () => sessions.delete(session));
      });
    },
    closeOlder(agentId, number) {
      for (const session of sessions) session.closeIfOlder(agentId, number);
    },
    newestSession(agentId) {
      let newest: number | undefined;
      for (const session of sessions) {
        const number = session.sessionOf(agentId);
        if (number !== undefined && number > (newest ?? 0)) newest = number;
      }
      return newest;
    },
    sendAway,
    close() {
      stopping.abort();
      sendAway('the control plane stops');
      sockets.close();
    },
  };
}

function refuse(socket: Duplex, status: string, message: string): void {
  const body = `${JSON.stringify({ code: status.startsWith('404') ? 'not_found' : 'invalid_argument', message })}\n`;
  socket.end(
    `HTTP/1.1 ${status}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
