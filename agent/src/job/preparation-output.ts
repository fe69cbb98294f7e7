/** What is kept and sent of what a preparation writes; beyond it is what nobody reads. */
const MAX_BYTES = 4 * 1024 * 1024;
/** Bytes that may be under way and not acknowledged, as for every attempt. */
const WINDOW_BYTES = 1024 * 1024;
/** Most bytes of one log message. */
const CHUNK_BYTES = 64 * 1024;
const FIRST_CAPACITY_BYTES = 16 * 1024;

/** What the preparation of one attempt has written: sent as far as acknowledgements allow, and kept for the code's start. */
export class PreparationOutput {
  readonly #emit: (offset: number, data: Uint8Array) => void;
  #buffer = Buffer.alloc(0);
  #length = 0;
  #truncated = false;
  #sent = 0;
  #stored = 0;
  #sending = false;

  /** @param emit sends bytes; may acknowledge from within */
  constructor(emit: (offset: number, data: Uint8Array) => void) {
    this.#emit = emit;
  }

  get length(): number {
    return this.#length;
  }

  get truncated(): boolean {
    return this.#truncated;
  }

  /** Whether all there is was sent. */
  get drained(): boolean {
    return this.#sent >= this.#length;
  }

  /** Everything that was written, marked at its end where it was cut off. */
  get bytes(): Uint8Array {
    return this.#buffer.subarray(0, this.#length);
  }

  append(data: Uint8Array): void {
    if (this.#truncated) return;
    const room = MAX_BYTES - this.#length;
    this.#push(data.subarray(0, room));
    if (data.length > room) {
      this.#truncated = true;
      this.#push(Buffer.from(`\n[harrier: preparation output truncated after ${MAX_BYTES} bytes]\n`));
    }
    this.send();
  }

  /** Sends what may be sent. */
  send(): void {
    if (this.#sending) return;
    this.#sending = true;
    while (!this.drained && this.#sent - this.#stored < WINDOW_BYTES) {
      const offset = this.#sent;
      this.#sent = Math.min(this.#length, offset + CHUNK_BYTES);
      this.#emit(offset, this.#buffer.subarray(offset, this.#sent));
    }
    this.#sending = false;
  }

  acknowledge(bytes: number): void {
    this.#stored = Math.max(this.#stored, Math.min(bytes, this.#length));
    this.#sent = Math.max(this.#sent, this.#stored);
    this.send();
  }

  /** Everything that is not acknowledged is to be sent once more. */
  rewind(): void {
    this.#sent = this.#stored;
  }

  #push(data: Uint8Array): void {
    const length = this.#length + data.length;
    if (length > this.#buffer.length) {
      // What was sent may still be read from the former buffer, which is never written again.
      const grown = Buffer.allocUnsafeSlow(Math.max(length, FIRST_CAPACITY_BYTES, 2 * this.#buffer.length));
      this.#buffer.copy(grown, 0, 0, this.#length);
      this.#buffer = grown;
    }
    this.#buffer.set(data, this.#length);
    this.#length = length;
  }
}
