import { type LogChunk, LogChunk_Stream as Stream } from '@harrier/shared/gen/execution';

/** Puts the chunks of one attempt together, and fails on a gap, a repetition or a chunk of another attempt. */
export class LogCollector {
  readonly #parts = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] };
  readonly #next: { stdout: number; stderr: number };
  readonly #attempt: number;

  constructor(from: { stdout?: number; stderr?: number; attempt?: number } = {}) {
    this.#next = { stdout: from.stdout ?? 0, stderr: from.stderr ?? 0 };
    this.#attempt = from.attempt ?? 1;
  }

  add(chunk: LogChunk | undefined): void {
    if (chunk === undefined) throw new Error('a message has no chunk');
    const stream = chunk.stream === Stream.STDERR ? 'stderr' : 'stdout';
    if (chunk.attempt !== this.#attempt) throw new Error(`a chunk of attempt ${chunk.attempt} came`);
    if (Number(chunk.offset) !== this.#next[stream]) {
      throw new Error(`${stream} went on at ${chunk.offset}, not at ${this.#next[stream]}`);
    }
    this.#next[stream] += chunk.data.length;
    this.#parts[stream].push(chunk.data);
  }

  get stdout(): Buffer {
    return Buffer.concat(this.#parts.stdout);
  }

  get stderr(): Buffer {
    return Buffer.concat(this.#parts.stderr);
  }
}
