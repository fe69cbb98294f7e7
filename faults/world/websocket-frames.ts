/** Splits one direction of a WebSocket connection (RFC 6455) into the opening handshake and whole frames. */
export class WebSocketFrames {
  #left: Buffer = Buffer.alloc(0);
  #open = false;

  /** @returns what is complete with these bytes, in order: the handshake first, then one buffer for each frame */
  add(data: Buffer): Buffer[] {
    this.#left = this.#left.length === 0 ? data : Buffer.concat([this.#left, data]);
    const parts: Buffer[] = [];
    for (let bytes = this.#nextBytes(); bytes !== undefined && bytes <= this.#left.length; bytes = this.#nextBytes()) {
      parts.push(this.#left.subarray(0, bytes));
      this.#left = this.#left.subarray(bytes);
      this.#open = true;
    }
    return parts;
  }

  /** Length of what comes next; undefined when not even that can be told. */
  #nextBytes(): number | undefined {
    if (!this.#open) {
      const end = this.#left.indexOf('\r\n\r\n');
      return end < 0 ? undefined : end + 4;
    }
    const [, second] = this.#left;
    if (second === undefined) return undefined;
    const mask = (second & 0x80) === 0 ? 0 : 4;
    const length = second & 0x7f;
    if (length < 126) return 2 + mask + length;
    const extended = length === 126 ? 2 : 8;
    if (this.#left.length < 2 + extended) return undefined;
    return 2 + extended + mask + (length === 126 ? this.#left.readUInt16BE(2) : Number(this.#left.readBigUInt64BE(2)));
  }
}

/** Whether a frame carries data, in contrast to pings, pongs, closes and the handshake. */
export function isDataFrame(part: Buffer): boolean {
  const opcode = (part[0] ?? 0) & 0x0f;
  return opcode === 2 || opcode === 0;
}

/** What a frame from a server carries: those are not masked. */
export function framePayload(frame: Buffer): Buffer {
  const length = (frame[1] ?? 0) & 0x7f;
  return frame.subarray(length < 126 ? 2 : length === 126 ? 4 : 10);
}
