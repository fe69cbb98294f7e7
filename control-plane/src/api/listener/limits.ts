/** What one connection may cost. */
export interface ListenerLimits {
  /** Time in which a new connection must show which protocol it speaks, TLS handshake included. */
  firstBytesTimeoutMs: number;
  /** HTTP/1.1: time for the head of a request. */
  headersTimeoutMs: number;
  /** HTTP/1.1: time for the whole of a request, body included. */
  requestTimeoutMs: number;
  /** HTTP/1.1: how long an idle connection is kept. */
  keepAliveTimeoutMs: number;
  /** Largest head of a request. */
  maxHeaderBytes: number;
  /** Connections open at once; further ones are closed at once. */
  maxConnections: number;
  /** HTTP/2: calls in flight on one connection. */
  maxConcurrentStreams: number;
}

export const DEFAULT_LISTENER_LIMITS: ListenerLimits = {
  firstBytesTimeoutMs: 10_000,
  headersTimeoutMs: 15_000,
  // 8 MiB, the largest request, at about 70 KiB/s.
  requestTimeoutMs: 120_000,
  // Longer than the 60 s of common load balancers, so that it is they who close idle connections.
  keepAliveTimeoutMs: 75_000,
  maxHeaderBytes: 32 * 1024,
  maxConnections: 10_000,
  maxConcurrentStreams: 1_000,
};
