import type { Socket } from 'node:net';

export type SniffedProtocol = 'http1' | 'http2';

/** First line of the connection preface of HTTP/2 with prior knowledge (RFC 9113, section 3.4). */
const HTTP2_PREFACE = Buffer.from('PRI * HTTP/2.0\r\n', 'latin1');

/**
 * Reads as many bytes of a fresh connection as tell HTTP/1.1 from HTTP/2, puts them back, and calls `onProtocol` once.
 * A connection that ends, fails or stays undecided for `timeoutMs` is destroyed without a call.
 */
export function sniffProtocol(
  socket: Socket,
  timeoutMs: number,
  onProtocol: (protocol: SniffedProtocol) => void,
): void {
  let received: Buffer = Buffer.alloc(0);
  const timer = setTimeout(() => socket.destroy(), timeoutMs);

  const stop = () => {
    clearTimeout(timer);
    socket.off('readable', onReadable);
    socket.off('error', stop);
    socket.off('close', stop);
    socket.off('end', stop);
  };
  const onReadable = () => {
    const chunk: Buffer | null = socket.read();
    if (chunk === null) return;
    received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
    const protocol = classify(received);
    if (protocol === undefined) return;
    stop();
    socket.unshift(received);
    onProtocol(protocol);
  };

  socket.on('readable', onReadable);
  socket.once('error', stop);
  socket.once('close', stop);
  socket.once('end', stop);
}

/** Undefined: every byte so far is also the beginning of the HTTP/2 preface. */
export function classify(firstBytes: Uint8Array): SniffedProtocol | undefined {
  const length = Math.min(firstBytes.length, HTTP2_PREFACE.length);
  for (let i = 0; i < length; i++) {
    if (firstBytes[i] !== HTTP2_PREFACE[i]) return 'http1';
  }
  return length === HTTP2_PREFACE.length ? 'http2' : undefined;
}
