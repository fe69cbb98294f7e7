/** A run of bytes of one stream. */
export interface LogPiece {
  offset: number;
  data: Uint8Array;
}

/** Bytes that stay in memory behind what is stored, so that followers seldom need the database. */
const KEPT_BYTES = 64 * 1024;
/** Largest row of the log. */
export const MAX_PIECE_BYTES = 64 * 1024;

/**
 * The bytes of one stream of a running attempt: those that are not stored yet and the latest that are. Readers take bytes by
 * offset, so that a slow reader holds nothing up and costs nothing; what has left memory is in the database.
 */
export class LogStream {
  readonly #pieces: LogPiece[] = [];
  #end: number;
  #stored: number;
  /** Everything before this was handed out to be stored. */
  #taken: number;

  /** @param stored how many bytes the database has already. */
  constructor(stored: number) {
    this.#end = stored;
    this.#stored = stored;
    this.#taken = stored;
  }

  /** Length of the stream so far. */
  get end(): number {
    return this.#end;
  }

  get stored(): number {
    return this.#stored;
  }

  /** First byte that is in memory. */
  get start(): number {
    return this.#pieces[0]?.offset ?? this.#end;
  }

  /** Adds bytes at the end. Bytes that are there already are ignored. @returns false when bytes before these are missing. */
  append(offset: number, data: Uint8Array): boolean {
    if (offset > this.#end) return false;
    const fresh = offset === this.#end ? data : data.subarray(this.#end - offset);
    if (fresh.length === 0) return true;
    this.#pieces.push({ offset: this.#end, data: fresh });
    this.#end += fresh.length;
    return true;
  }

  /** Bytes that nobody has taken to store yet, at most `maxBytes`, in pieces of at most MAX_PIECE_BYTES. */
  take(maxBytes: number): LogPiece[] {
    const taken: LogPiece[] = [];
    let budget = maxBytes;
    while (this.#taken < this.#end && budget > 0) {
      const piece = this.#gather(this.#taken, Math.min(MAX_PIECE_BYTES, budget));
      taken.push(piece);
      this.#taken += piece.data.length;
      budget -= piece.data.length;
    }
    return taken;
  }

  /** Everything before `offset` is stored. */
  markStored(offset: number): void {
    this.#stored = Math.max(this.#stored, offset);
    while (this.#pieces.length > 1) {
      const second = this.#pieces[1];
      if (second === undefined || second.offset > this.#stored || this.#end - second.offset < KEPT_BYTES) break;
      this.#pieces.shift();
    }
  }

  /** Bytes from `offset` on, as one piece; undefined when they are not in memory (any more, or yet). */
  read(offset: number, maxBytes: number = MAX_PIECE_BYTES): LogPiece | undefined {
    if (offset >= this.#end || offset < this.start) return undefined;
    return this.#gather(offset, maxBytes);
  }

  /** The last bytes, at most `maxBytes`, as far as they are in memory. */
  tail(maxBytes: number): Uint8Array {
    const offset = Math.max(this.start, this.#end - maxBytes);
    return this.#gather(offset, this.#end - offset).data;
  }

  #gather(offset: number, maxBytes: number): LogPiece {
    const parts: Uint8Array[] = [];
    let length = 0;
    for (let index = this.#indexOf(offset); index < this.#pieces.length && length < maxBytes; index++) {
      const piece = this.#pieces[index];
      if (piece === undefined) break;
      const part = piece.data.subarray(offset + length - piece.offset).subarray(0, maxBytes - length);
      parts.push(part);
      length += part.length;
    }
    const [only] = parts;
    return { offset, data: parts.length === 1 && only !== undefined ? only : Buffer.concat(parts, length) };
  }

  /** Index of the piece that holds `offset`, by bisection. */
  #indexOf(offset: number): number {
    let low = 0;
    let high = this.#pieces.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.#pieces[middle]?.offset ?? 0) <= offset) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}
