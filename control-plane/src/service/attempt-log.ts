import { failpoint } from '@harrier/shared';
import { LogChunk_Stream as Stream } from '@harrier/shared/gen/execution';
import type { GroupCommit } from '../db/group-commit.ts';
import type { NewLogChunk } from '../db/queries/log-chunks.ts';
import { ChangeSignal } from './change-signal.ts';
import { LogStream } from './log-stream.ts';
import type { StoreRetries } from './store-retries.ts';

/**
 * Bytes of a stream in one write, and writes of a stream under way at once. Together less than the 1 MiB that an agent may
 * send unacknowledged: the rest of it is on its way while these are being stored.
 */
const WRITE_BYTES = 384 * 1024;
const WRITES_UNDER_WAY = 2;

export type LogStreamName = typeof Stream.STDOUT | typeof Stream.STDERR;

export interface AttemptLogOptions {
  tenantId: string;
  executionId: string;
  attempt: number;
  /** Bytes that the database has already. */
  stored: { stdout: number; stderr: number };
  writer: GroupCommit<NewLogChunk, void>;
  retries: StoreRetries;
  /** More bytes are stored: the agent can forget them. */
  onStored: (log: AttemptLog) => void;
}

/** The log of one running attempt: what readers follow and what is on its way to the database. */
export class AttemptLog {
  readonly stdout: LogStream;
  readonly stderr: LogStream;
  /** Told when bytes came or were stored. */
  readonly changed = new ChangeSignal();
  readonly #options: AttemptLogOptions;
  readonly #writes = { [Stream.STDOUT]: 0, [Stream.STDERR]: 0 };
  #closed = false;

  constructor(options: AttemptLogOptions) {
    this.#options = options;
    this.stdout = new LogStream(options.stored.stdout);
    this.stderr = new LogStream(options.stored.stderr);
  }

  get attempt(): number {
    return this.#options.attempt;
  }

  stream(name: LogStreamName): LogStream {
    return name === Stream.STDOUT ? this.stdout : this.stderr;
  }

  /** @returns false when bytes before these are missing. */
  append(name: LogStreamName, offset: number, data: Uint8Array): boolean {
    if (!this.stream(name).append(offset, data)) return false;
    this.changed.notify();
    // What comes in the same turn shares a row.
    setImmediate(() => this.#pump(name));
    return true;
  }

  /** Resolves when everything that came is in the database, or never will be. @returns whether it is */
  async allStored(signal: AbortSignal): Promise<boolean> {
    while (this.stdout.stored < this.stdout.end || this.stderr.stored < this.stderr.end) {
      if (this.#closed) return false;
      await this.changed.wait(signal);
    }
    return true;
  }

  /** No more writes are started: somebody else owns the execution now. */
  close(): void {
    this.#closed = true;
    this.changed.notify();
  }

  #pump(name: LogStreamName): void {
    while (this.#writes[name] < WRITES_UNDER_WAY && !this.#closed) {
      const pieces = this.stream(name).take(WRITE_BYTES);
      if (pieces.length === 0) return;
      this.#writes[name]++;
      const { tenantId, executionId, attempt } = this.#options;
      const chunks = pieces.map((piece) => ({ tenantId, executionId, attempt, stream: name, ...piece }));
      const before = this.#lastWrite[name];
      this.#lastWrite[name] = this.#store(name, chunks, before).finally(() => {
        this.#writes[name]--;
        this.#pump(name);
      });
    }
  }

  /** Writes end in order, so that `stored` never claims bytes that an earlier write still carries. */
  readonly #lastWrite = { [Stream.STDOUT]: Promise.resolve(), [Stream.STDERR]: Promise.resolve() };

  async #store(name: LogStreamName, chunks: NewLogChunk[], before: Promise<void>): Promise<void> {
    await this.#write(chunks);
    await before;
    const last = chunks.at(-1);
    if (last === undefined || this.#closed) return;
    this.stream(name).markStored(last.offset + last.data.length);
    this.changed.notify();
    this.#options.onStored(this);
  }

  /** A write that nobody wants any more, or that the control plane has no time for, closes the log: nothing is stored behind it. */
  async #write(chunks: NewLogChunk[]): Promise<void> {
    const { retries, writer, executionId, attempt } = this.#options;
    const options = { what: 'log bytes', about: { executionId, attempt }, isFinal: () => this.#closed };
    const write = async () => {
      if (this.#closed) throw new Error('the log is closed');
      failpoint('log-before-commit');
      await Promise.all(chunks.map((chunk) => writer.add(chunk)));
      failpoint('log-committed');
    };
    await retries.store(options, write).catch(() => this.close());
  }
}
