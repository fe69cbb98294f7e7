import { constants } from 'node:fs';
import { mkdir, open, readFile, rename, rm, stat, symlink, unlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { messageOf } from '@harrier/shared';
import { cutRecords, firstRecordBytes, type JobRecord } from './job-records.ts';

/** What a job is started with, beside the attempt itself. */
export interface JobSettings {
  /** Options of the runtime, as of the launcher's command line. */
  flags: readonly string[];
  /** Path of the agent's lease. */
  lease: string;
  /** Limit of the job's time that was asked for, in milliseconds; 0: none. */
  time_ms: number;
  /** Where a node has the device nodes of its cards. */
  gpu_dev_root: string;
}

/** The job that has started an attempt. */
export interface Taken {
  /** Number of the job. */
  job: string;
  node: string;
  /** Slurm has started that job once more; its second start has found the attempt taken. */
  startedAgain: boolean;
}

/** Who has taken an attempt: a job, to start it, or the agent, so that no job does. */
export type Taker = Taken | 'agent';

const READ_BYTES = 256 * 1024;
/** The largest frame of the runtime, with its prefix and checksum. */
const MAX_RECORD_BYTES = 26 * 1024 * 1024;
const MAX_LOG_CHARS = 2_000;

/**
 * The directory of an attempt on the file system that the agent shares with the nodes. Everything is asynchronous: a file
 * server that hangs must not hold the agent.
 */
export class JobDirectory {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /**
   * Makes it, in the place of what may be there; not the directory of all jobs, which would hide that the file system is away.
   * @param start frame of the launcher's protocol
   * @param runtime directory of the runtime's files
   */
  async create(start: readonly Uint8Array[], settings: JobSettings, runtime: string): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
    await mkdir(this.path, { mode: 0o700 });
    await writeFile(join(this.path, 'start'), start, { mode: 0o600 });
    await writeFile(join(this.path, 'job.json'), JSON.stringify(settings), { mode: 0o600 });
    await writeFile(join(this.path, 'records'), '', { mode: 0o600 });
    await symlink(runtime, join(this.path, 'runtime'));
  }

  /**
   * The records from an offset on, and the offset behind them; none where the job has no files any more. Opened anew each
   * time: that is when others' bytes are seen.
   * @throws Error of the file system: there may be more
   */
  async read(offset: number): Promise<{ records: JobRecord[]; next: number }> {
    const path = join(this.path, 'records');
    const file = await open(path, 'r').catch((error) => this.#missing(path, error));
    if (file === undefined) return { records: [], next: offset };
    try {
      let data = await readAt(file, offset, READ_BYTES);
      const wanted = firstRecordBytes(data);
      if (wanted > data.length && wanted <= MAX_RECORD_BYTES) data = await readAt(file, offset, wanted);
      const { records, bytes } = cutRecords(data);
      return { records, next: offset + bytes };
    } finally {
      await file.close();
    }
  }

  /**
   * Who has taken the attempt; undefined: nobody has. The number of a job is empty where that is not written, or not yet.
   * @throws Error of the file system: nobody knows
   */
  async taken(): Promise<Taker | undefined> {
    const path = join(this.path, 'taken');
    // What a job has made is a file, and never a link to one.
    const options = { encoding: 'utf8', flag: constants.O_RDONLY | constants.O_NOFOLLOW } as const;
    let text: string | undefined;
    try {
      text = await readFile(path, options);
    } catch (error) {
      if (isCode(error, 'EISDIR')) return 'agent';
      text = await this.#missing(path, error);
    }
    if (text === undefined) return undefined;
    const again = await stat(join(this.path, 'again')).catch((error) => this.#missing(join(this.path, 'again'), error));
    return { ...parseTaken(text), startedAgain: again !== undefined };
  }

  /**
   * Takes the attempt for the agent, if no job has. A job makes a file by that name; this is a directory. Of both, only one can be
   * made, whoever dies meanwhile, and what it is says at once and for good whose it is: a later agent must not take an empty file of
   * its forerunner for that of a job. The runtime of an older agent's jobs ends on it, too.
   * @returns who has it now: the agent also where the job has no files any more, as there is nothing to run
   * @throws Error of the file system: nobody knows
   */
  async take(): Promise<Taker> {
    const path = join(this.path, 'taken');
    try {
      await mkdir(path, { mode: 0o700 });
      return 'agent';
    } catch (error) {
      if (!isCode(error, 'EEXIST')) {
        await this.#missing(this.path, error);
        return 'agent';
      }
    }
    const taken = await this.taken();
    if (taken === undefined) throw new Error(`${path} was there, and is not any more`);
    return taken;
  }

  /** Tells the job to end, also where Slurm cannot. The newest word counts. */
  async askForEnd(reason: 'cancel' | 'shutdown', graceMs: number): Promise<void> {
    const path = join(this.path, 'cancel.json');
    await writeFile(`${path}.new`, JSON.stringify({ reason, grace_ms: graceMs }), { mode: 0o600 });
    await rename(`${path}.new`, path);
  }

  /** The end of what Slurm and the runtime have said; empty: nothing. */
  async log(): Promise<string> {
    const text = await readFile(join(this.path, 'job.log'), 'utf8').catch(() => '');
    return text.slice(-MAX_LOG_CHARS).trim();
  }

  /** A job that comes up meanwhile may find the attempt not taken any more: what it would run goes first. */
  async remove(): Promise<void> {
    await unlink(join(this.path, 'start')).catch((error) => {
      if (!isCode(error, 'ENOENT') && !isCode(error, 'ENOTDIR')) throw error;
    });
    await rm(this.path, { recursive: true, force: true, maxRetries: 3 });
  }

  /**
   * A file that is not there is missing only where the directory of all jobs is: of a file system that is not mounted, the place
   * is empty.
   * @throws the error, when it says something else
   */
  async #missing(path: string, error: unknown): Promise<undefined> {
    if (!isCode(error, 'ENOENT')) throw error;
    try {
      await stat(dirname(this.path));
    } catch (cause) {
      throw new Error(`the directory of all jobs is away: ${messageOf(cause)}`, { cause });
    }
    // The file system may have come back in between.
    const isThere = await stat(path).then(
      () => true,
      (again) => !isCode(again, 'ENOENT'),
    );
    if (isThere) throw error;
    return undefined;
  }
}

async function readAt(file: Awaited<ReturnType<typeof open>>, offset: number, length: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await file.read(buffer, filled, length - filled, offset + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return buffer.subarray(0, filled);
}

function isCode(error: unknown, code: string): boolean {
  return (error as NodeJS.ErrnoException).code === code;
}

/** A job makes the file before it writes into it, and its node may fail in between. */
function parseTaken(text: string): Pick<Taken, 'job' | 'node'> {
  let told: unknown;
  try {
    told = JSON.parse(text);
  } catch {
    told = undefined;
  }
  const { job, node } = (told ?? {}) as Record<string, unknown>;
  return {
    job: typeof job === 'string' && /^\d+$/.test(job) ? job : '',
    node: typeof node === 'string' && node !== '' ? node : 'a node that it has not told',
  };
}
