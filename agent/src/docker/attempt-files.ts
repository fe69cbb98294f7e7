import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '@harrier/shared';
import type { OutputStream } from './stream-frames.ts';

/** A stream's bytes on disk, up to a limit. */
interface Stream {
  fd: number;
  bytes: number;
  readonly limitBytes: number;
  /** Whether the end of a stream that was cut off says so. */
  readonly marked: boolean;
  truncated: boolean;
}

export interface StreamLimit {
  bytes: number;
  /** A log ends with a line that says that it was cut off; a result does not. */
  marked: boolean;
}

/**
 * What is kept of one attempt until the control plane has it: the two streams, facts as JSON, and marks. One directory,
 * which outlives the agent's process. The streams may lose their ends with the host; facts that are kept are synced.
 */
export class AttemptFiles {
  readonly directory: string;
  readonly #streams: Record<OutputStream, Stream>;

  private constructor(directory: string, limits: Record<OutputStream, StreamLimit>) {
    this.directory = directory;
    this.#streams = { stdout: this.#open('stdout', limits.stdout), stderr: this.#open('stderr', limits.stderr) };
  }

  /** Opens the directory, or makes it. */
  static open(directory: string, limits: Record<OutputStream, StreamLimit>): AttemptFiles {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    return new AttemptFiles(directory, limits);
  }

  /** Bytes of the stream, the line about its end included. */
  length(stream: OutputStream): number {
    return this.#streams[stream].bytes;
  }

  truncated(stream: OutputStream): boolean {
    return this.#streams[stream].truncated;
  }

  /** Adds bytes; those beyond the limit are dropped. @throws Error of the file system */
  append(name: OutputStream, data: Uint8Array): void {
    const stream = this.#streams[name];
    if (stream.truncated) return;
    const room = stream.limitBytes - stream.bytes;
    this.#write(stream, data.subarray(0, room));
    if (data.length <= room) return;
    stream.truncated = true;
    if (stream.marked) this.#write(stream, Buffer.from(truncationLine(name, stream.limitBytes)));
    else this.keep(truncationMark(name), true);
  }

  /** At most that many bytes from an offset; fewer at the end. */
  read(name: OutputStream, offset: number, maxBytes: number): Buffer {
    const stream = this.#streams[name];
    const buffer = Buffer.allocUnsafe(Math.max(0, Math.min(maxBytes, stream.bytes - offset)));
    let filled = 0;
    while (filled < buffer.length) {
      const count = readSync(stream.fd, buffer, filled, buffer.length - filled, offset + filled);
      if (count === 0) break;
      filled += count;
    }
    return buffer.subarray(0, filled);
  }

  /** Keeps facts under a name, as a whole or not at all. */
  keep(name: string, facts: unknown): void {
    keepFacts(this.directory, name, facts, true);
  }

  /** Keeps facts as `keep` does, for as long as the host runs: one that fails may leave what cannot be read. */
  note(name: string, facts: unknown): void {
    keepFacts(this.directory, name, facts, false);
  }

  /** @returns the facts kept under a name; undefined when there are none. @throws Error when they cannot be read */
  kept(name: string): unknown {
    return keptFacts(this.directory, name);
  }

  /** Closes the files and leaves them. */
  close(): void {
    for (const stream of Object.values(this.#streams)) {
      if (stream.fd >= 0) closeSync(stream.fd);
      stream.fd = -1;
    }
  }

  remove(): void {
    this.close();
    rmSync(this.directory, { recursive: true, force: true });
  }

  #open(name: OutputStream, { bytes: limitBytes, marked }: StreamLimit): Stream {
    const path = join(this.directory, name);
    const fd = openSync(path, 'a+', 0o600);
    const { size } = statSync(path);
    const truncated = marked ? size > limitBytes : existsSync(join(this.directory, truncationMark(name)));
    return { fd, bytes: size, limitBytes, marked, truncated };
  }

  #write(stream: Stream, data: Uint8Array): void {
    let written = 0;
    while (written < data.length) {
      const count = writeSync(stream.fd, data, written);
      written += count;
      // Also when the next piece finds the disk full: what is in the file counts, so that offsets stay true.
      stream.bytes += count;
    }
  }
}

function keepFacts(directory: string, name: string, facts: unknown, synced: boolean): void {
  const path = join(directory, name);
  const file = openSync(`${path}.new`, 'w', 0o600);
  try {
    writeFileSync(file, JSON.stringify(facts));
    // A host that fails may else keep the name and not the bytes.
    if (synced) fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(`${path}.new`, path);
}

/** Makes the directory with facts that hold for as long as the host runs. @throws Error of the file system */
export function noteFacts(directory: string, name: string, facts: unknown): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  keepFacts(directory, name, facts, false);
}

/** @throws Error when what is kept cannot be read */
export function keptFacts(directory: string, name: string): unknown {
  const path = join(directory, name);
  if (!existsSync(path)) return undefined;
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new Error(`${path} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

function truncationMark(name: OutputStream): string {
  return `${name}-truncated`;
}

/** As the launcher writes it. */
function truncationLine(name: OutputStream, limitBytes: number): string {
  return `\n[harrier: ${name} truncated after ${limitBytes} bytes]\n`;
}
