import { basename, dirname } from 'node:path';
import { messageOf } from '@harrier/shared';
import { createStream, type RotatingFileStream } from 'rotating-file-stream';

export interface LogFileSettings {
  path: string;
  /** A file that has so many is followed by a new one. */
  maxBytes: number;
  /** How many are kept, the one that is written to included: `PATH`, `PATH.1`, and so on to the oldest. */
  files: number;
}

/** After a failure: the disk is full, or the directory is gone. */
const RETRY_MS = 10_000;
/** What waits for a disk that hangs; further lines are dropped. */
const MAX_WAITING_BYTES = 8 * 1024 * 1024;

/** A log file that is rotated by its size. It never holds up or ends whoever writes: lines that it does not take are dropped. */
export class LogFile {
  readonly #settings: LogFileSettings;
  readonly #onFailure: (reason: string) => void;
  #stream: RotatingFileStream | undefined;
  #retryAtMs = Number.NEGATIVE_INFINITY;
  #closed = false;

  /** @param onFailure told why lines are being dropped, once for each time that this begins */
  constructor(settings: LogFileSettings, onFailure: (reason: string) => void) {
    this.#settings = settings;
    this.#onFailure = onFailure;
  }

  write(line: string): void {
    const stream = this.#open();
    if (stream !== undefined && stream.writableLength < MAX_WAITING_BYTES) stream.write(line);
  }

  /** Resolves when the file has what was written. Later lines are dropped. */
  async close(): Promise<void> {
    this.#closed = true;
    const stream = this.#stream;
    this.#stream = undefined;
    if (stream === undefined) return;
    await new Promise<void>((resolve) => {
      stream.once('close', resolve);
      stream.once('error', () => resolve());
      stream.end(() => resolve());
    });
  }

  #open(): RotatingFileStream | undefined {
    if (this.#stream !== undefined || this.#closed || performance.now() < this.#retryAtMs) return this.#stream;
    const { path, maxBytes, files } = this.#settings;
    const name = basename(path);
    const stream = createStream((index) => (index === null ? name : `${name}.${String(index)}`), {
      path: dirname(path),
      size: `${maxBytes}B`,
      rotate: Math.max(1, files - 1),
      // What runs is nobody else's business.
      mode: 0o640,
    });
    stream.on('error', (error) => this.#failed(stream, messageOf(error)));
    stream.on('warning', (error) => this.#onFailure(messageOf(error)));
    this.#stream = stream;
    return stream;
  }

  #failed(stream: RotatingFileStream, reason: string): void {
    if (this.#stream !== stream) return;
    this.#stream = undefined;
    this.#retryAtMs = performance.now() + RETRY_MS;
    this.#onFailure(reason);
  }
}
