const HEADER_BYTES = 8;
const STREAMS = { 1: 'stdout', 2: 'stderr' } as const;

export type OutputStream = (typeof STREAMS)[keyof typeof STREAMS];

/**
 * Takes apart what the engine sends of a container without a terminal: frames of one byte for the stream, three of zero,
 * four of length (big-endian), and the bytes. Frames may come in any pieces; the bytes are passed on as they come.
 */
export class StreamFrames {
  readonly #onBytes: (stream: OutputStream, data: Buffer) => void;
  readonly #onFrame: (lengthBytes: number) => void;
  #header = Buffer.alloc(0);
  #stream: OutputStream = 'stdout';
  #left = 0;

  /** @param onFrame told of each frame's length before its bytes */
  constructor(
    onBytes: (stream: OutputStream, data: Buffer) => void,
    onFrame: (lengthBytes: number) => void = () => {},
  ) {
    this.#onBytes = onBytes;
    this.#onFrame = onFrame;
  }

  /** @throws Error when the bytes are not of this form */
  add(chunk: Buffer): void {
    let rest = chunk;
    while (rest.length > 0) {
      if (this.#left === 0) {
        const missing = HEADER_BYTES - this.#header.length;
        this.#header = Buffer.concat([this.#header, rest.subarray(0, missing)]);
        rest = rest.subarray(missing);
        if (this.#header.length === HEADER_BYTES) this.#open();
        continue;
      }
      const data = rest.subarray(0, this.#left);
      rest = rest.subarray(data.length);
      this.#left -= data.length;
      this.#onBytes(this.#stream, data);
    }
  }

  #open(): void {
    const stream = STREAMS[this.#header[0] as keyof typeof STREAMS];
    if (stream === undefined) throw new Error(`the engine sent a frame of stream ${this.#header[0]}`);
    this.#stream = stream;
    this.#left = this.#header.readUInt32BE(4);
    this.#header = Buffer.alloc(0);
    this.#onFrame(this.#left);
  }
}
