import { type FileHandle, open, stat } from 'node:fs/promises';
import { HarrierError, type Logger, messageOf } from '@harrier/shared';
import {
  BEFORE_ALL_EVENTS,
  type EventPosition,
  isOfThisCluster,
  isRebased,
  readEvents,
  readerPosition,
  saveReaderPosition,
} from '../db/queries/events.ts';
import type { Sql } from '../db/sql.ts';
import { eventLine, positionOfLine } from './event-line.ts';

const LOOK_MS = 250;
/** After a failure: the disk is full, or the database is away. */
const RETRY_MS = 5_000;
/** How often the database is told how far the file is. After a crash the file itself tells. */
const SAVE_MS = 5_000;
const EVENTS_A_READ = 1_000;
/** A line is far shorter: the data of an event is a few names. */
const MAX_LINE_BYTES = 64 * 1024;

export interface EventFileOptions {
  sql: Sql;
  path: string;
  /** Under which the database remembers how far this file has come. */
  reader: string;
  logger: Logger;
}

/**
 * Writes every event to a file, one JSON object a line, each once and in order: a file that is there is continued behind its
 * last whole line, one that was moved away is begun anew behind what was written before.
 */
export class EventFile {
  readonly #options: EventFileOptions;
  #file: FileHandle | undefined;
  #position: EventPosition = BEFORE_ALL_EVENTS;
  #saved: EventPosition | undefined;
  #savedAtMs = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;
  #failing = false;
  #written = 0;
  #work: Promise<void> = Promise.resolve();

  private constructor(options: EventFileOptions) {
    this.#options = options;
  }

  /** @throws HarrierError failed_precondition when the file cannot be written or does not hold events. */
  static async open(options: EventFileOptions): Promise<EventFile> {
    const file = new EventFile(options);
    try {
      await file.#open();
    } catch (cause) {
      const message = `HARRIER_EVENTS_FILE: ${options.path} cannot be continued: ${messageOf(cause)}`;
      throw new HarrierError('failed_precondition', message, { cause });
    }
    await saveReaderPosition(options.sql, options.reader, file.#position);
    file.#arm(0);
    return file;
  }

  /** Events that were written since it was opened, and whether they wait now for what cannot be reached. */
  get state(): { written: number; failing: boolean } {
    return { written: this.#written, failing: this.#failing };
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#work;
    await this.#save().catch(() => undefined);
    await this.#file?.close();
  }

  #arm(ms: number): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => {
      this.#work = this.#run();
    }, ms);
    this.#timer.unref();
  }

  async #run(): Promise<void> {
    const { logger, path } = this.#options;
    try {
      while (!this.#stopped && (await this.#writeNext())) {}
      await this.#save();
      if (this.#failing) logger.info({ path }, 'events are written again');
      this.#failing = false;
    } catch (error) {
      if (!this.#failing) logger.error({ path, reason: messageOf(error) }, 'events cannot be written; trying again');
      this.#failing = true;
      // What a failed write left of a line is cut off when the file is opened anew.
      await this.#file?.close().catch(() => undefined);
      this.#file = undefined;
    }
    this.#arm(this.#failing ? RETRY_MS : LOOK_MS);
  }

  /** @returns whether there may be more. */
  async #writeNext(): Promise<boolean> {
    const { sql } = this.#options;
    const events = await readEvents(sql, this.#position, EVENTS_A_READ);
    const last = events.at(-1);
    if (last === undefined) return false;
    if (this.#file === undefined || (await this.#wasMoved())) await this.#open();
    // Opening may have found that the file is further.
    if (!isBefore(this.#position, events[0] ?? last)) return true;
    await this.#file?.appendFile(events.map((event) => `${eventLine(event)}\n`).join(''));
    await this.#file?.datasync();
    this.#position = { xid: last.xid, id: last.id };
    this.#written += events.length;
    return events.length === EVENTS_A_READ;
  }

  async #save(): Promise<void> {
    if (performance.now() - this.#savedAtMs < SAVE_MS && !this.#stopped) return;
    this.#savedAtMs = performance.now();
    if (this.#saved === this.#position) return;
    await saveReaderPosition(this.#options.sql, this.#options.reader, this.#position);
    this.#saved = this.#position;
  }

  /** Opens the file and cuts a torn last line off. */
  async #open(): Promise<void> {
    const { sql, path, reader } = this.#options;
    await this.#file?.close().catch(() => undefined);
    this.#file = undefined;
    const known = (await readerPosition(sql, reader)) ?? BEFORE_ALL_EVENTS;
    if (isBefore(this.#position, known)) this.#position = known;
    const file = await open(path, 'a+', 0o600);
    try {
      const written = await lastPosition(file);
      // After a restore into another cluster only the database knows how far the file is.
      const isAhead = written !== undefined && !isRebased(known) && isBefore(this.#position, written);
      if (isAhead && (await isOfThisCluster(sql, written))) this.#position = written;
    } catch (error) {
      await file.close();
      throw error;
    }
    this.#file = file;
  }

  /** Whether somebody has rotated it: the path names another file, or none. */
  async #wasMoved(): Promise<boolean> {
    const [ours, named] = await Promise.all([this.#file?.stat(), stat(this.#options.path).catch(() => undefined)]);
    return named === undefined || named.ino !== ours?.ino || named.dev !== ours.dev;
  }
}

/** The position of the last whole line; what stands behind it is cut off. Undefined for an empty file. */
async function lastPosition(file: FileHandle): Promise<EventPosition | undefined> {
  const { size } = await file.stat();
  const length = Math.min(size, 2 * MAX_LINE_BYTES);
  const tail = Buffer.alloc(length);
  await file.read(tail, 0, length, size - length);
  const end = tail.lastIndexOf('\n') + 1;
  if (end === 0 && size > MAX_LINE_BYTES) throw new Error('its last line is no event');
  if (end < length) await file.truncate(size - length + end);
  if (end === 0) return undefined;
  const start = tail.lastIndexOf('\n', end - 2) + 1;
  const position = positionOfLine(tail.toString('utf8', start, end));
  if (position === undefined) throw new Error('its last line is no event');
  return position;
}

function isBefore(a: EventPosition, b: EventPosition): boolean {
  const [ax, bx] = [BigInt(a.xid), BigInt(b.xid)];
  return ax === bx ? a.id < b.id : ax < bx;
}
