/** `u32 header length, u32 body length`, big-endian. Source: docs/launcher-protocol.md. */
const PREFIX_BYTES = 8;
const MAX_HEADER_BYTES = 1024 * 1024;
const MAX_BODY_BYTES = 24 * 1024 * 1024;

/** The launcher sent something that is not its protocol; the connection must be closed. */
export class LauncherProtocolError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'LauncherProtocolError';
  }
}

/** The length prefix and the header of a frame as one buffer; `bodyBytes` bytes of body must follow it. */
export function encodeHeader(header: object, bodyBytes: number): Buffer {
  const text = JSON.stringify(header);
  const headerBytes = Buffer.byteLength(text);
  if (headerBytes > MAX_HEADER_BYTES) {
    throw new LauncherProtocolError(`a header of ${headerBytes} bytes is larger than ${MAX_HEADER_BYTES}`);
  }
  if (bodyBytes > MAX_BODY_BYTES) {
    throw new LauncherProtocolError(`a body of ${bodyBytes} bytes is larger than ${MAX_BODY_BYTES}`);
  }
  const buffer = Buffer.allocUnsafe(PREFIX_BYTES + headerBytes);
  buffer.writeUInt32BE(headerBytes, 0);
  buffer.writeUInt32BE(bodyBytes, 4);
  buffer.write(text, PREFIX_BYTES, 'utf8');
  return buffer;
}

/**
 * Cuts a byte stream into frames. A frame that lies within one chunk is handed over as views of it; one that spans chunks
 * is copied together once.
 */
export class FrameDecoder {
  readonly #onFrame: (header: unknown, body: Buffer) => void;
  #chunks: Buffer[] = [];
  #bytes = 0;
  /** Bytes that must be there before anything can be done. */
  #wanted = PREFIX_BYTES;

  /** @param onFrame is called in order; `body` may be kept but not changed */
  constructor(onFrame: (header: unknown, body: Buffer) => void) {
    this.#onFrame = onFrame;
  }

  /** @throws LauncherProtocolError when the stream cannot be read on */
  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (this.#bytes < this.#wanted) return;
    const data = this.#chunks.length === 1 ? chunk : Buffer.concat(this.#chunks, this.#bytes);
    let start = 0;
    this.#wanted = frameBytes(data, start);
    while (data.length - start >= this.#wanted) {
      this.#emit(data.subarray(start, start + this.#wanted));
      start += this.#wanted;
      this.#wanted = frameBytes(data, start);
    }
    this.#bytes = data.length - start;
    this.#chunks = this.#bytes === 0 ? [] : [data.subarray(start)];
  }

  #emit(frame: Buffer): void {
    const headerEnd = PREFIX_BYTES + frame.readUInt32BE(0);
    this.#onFrame(parseHeader(frame.toString('utf8', PREFIX_BYTES, headerEnd)), frame.subarray(headerEnd));
  }
}

/** Length of the frame at `start`, or of a prefix when that is not complete yet. */
function frameBytes(data: Buffer, start: number): number {
  if (data.length - start < PREFIX_BYTES) return PREFIX_BYTES;
  const headerBytes = data.readUInt32BE(start);
  const bodyBytes = data.readUInt32BE(start + 4);
  if (headerBytes === 0 || headerBytes > MAX_HEADER_BYTES || bodyBytes > MAX_BODY_BYTES) {
    throw new LauncherProtocolError(`a frame announces ${headerBytes} bytes of header and ${bodyBytes} of body`);
  }
  return PREFIX_BYTES + headerBytes + bodyBytes;
}

function parseHeader(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new LauncherProtocolError('the header of a frame is not JSON', { cause });
  }
}
