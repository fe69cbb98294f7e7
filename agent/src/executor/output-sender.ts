import type { AttemptFiles } from '../docker/attempt-files.ts';

type Stream = 'stdout' | 'stderr';

/** Bytes of an attempt that may be under way and not acknowledged. */
const WINDOW_BYTES = 1024 * 1024;
const CHUNK_BYTES = 64 * 1024;

/** Sends what is in the files of an attempt, in order of offset, as far as acknowledgements allow. */
export class OutputSender {
  readonly #files: AttemptFiles;
  readonly #streams: readonly Stream[];
  readonly #emit: (stream: Stream, offset: number, data: Uint8Array) => void;
  readonly #sent: Record<Stream, number> = { stdout: 0, stderr: 0 };
  readonly #stored: Record<Stream, number> = { stdout: 0, stderr: 0 };

  /** @param streams those that are logs */
  constructor(
    files: AttemptFiles,
    streams: readonly Stream[],
    emit: (stream: Stream, offset: number, data: Uint8Array) => void,
  ) {
    this.#files = files;
    this.#streams = streams;
    this.#emit = emit;
  }

  /** Whether all there is was sent. */
  get drained(): boolean {
    return this.#streams.every((stream) => this.#sent[stream] >= this.#files.length(stream));
  }

  /** Bytes of the logs that are here and not acknowledged. */
  get unacknowledgedBytes(): number {
    return this.#streams.reduce(
      (sum, stream) => sum + Math.max(0, this.#files.length(stream) - this.#stored[stream]),
      0,
    );
  }

  /** Length of a stream as a log. */
  length(stream: Stream): number {
    return this.#streams.includes(stream) ? this.#files.length(stream) : 0;
  }

  /** Those bytes of the stream were sent by somebody else. */
  skip(stream: Stream, bytes: number): void {
    this.#sent[stream] = bytes;
  }

  send(): void {
    for (const stream of this.#streams) {
      while (this.#sent[stream] < this.#files.length(stream) && this.#underWay < WINDOW_BYTES) {
        const offset = this.#sent[stream];
        const data = this.#files.read(stream, offset, CHUNK_BYTES);
        if (data.length === 0) break;
        this.#sent[stream] += data.length;
        this.#emit(stream, offset, data);
      }
    }
  }

  acknowledge(stdoutBytes: number, stderrBytes: number): void {
    for (const [stream, bytes] of [
      ['stdout', stdoutBytes],
      ['stderr', stderrBytes],
    ] as const) {
      this.#stored[stream] = Math.max(this.#stored[stream], bytes);
      this.#sent[stream] = Math.max(this.#sent[stream], this.#stored[stream]);
    }
    this.send();
  }

  /** Everything that is not acknowledged is to be sent once more. */
  rewind(): void {
    Object.assign(this.#sent, this.#stored);
  }

  get #underWay(): number {
    return this.#streams.reduce((sum, stream) => sum + this.#sent[stream] - this.#stored[stream], 0);
  }
}
