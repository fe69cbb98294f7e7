import { mkdir, open, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
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

/** Who has started an attempt. */
export interface Taken {
  /** Number of the job. */
  job: string;
  node: string;
  /** Slurm has started that job once more; its second start has found the attempt taken. */
  startedAgain: boolean;
}

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
   * The job and the node that have started the attempt; undefined: none has. Its number is empty where that is not written, or
   * not yet.
   * @throws Error of the file system: nobody knows
   */
  async taken(): Promise<Taken | undefined> {
    const path = join(this.path, 'taken');
    const text = await readFile(path, 'utf8').catch((error) => this.#missing(path, error));
    if (text === undefined) return undefined;
    const again = await stat(join(this.path, 'again')).catch((error) => this.#missing(join(this.path, 'again'), error));
    return { ...parseTaken(text), startedAgain: again !== undefined };
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

  async remove(): Promise<void> {
    await rm(this.path, { recursive: true, force: true, maxRetries: 3 });
  }

  /**
   * A file that is not there is missing only where the directory of all jobs is: of a file system that is not mounted, the place
   * is empty.
   * @throws the error, when it says something else
   */
  async #missing(path: string, error: unknown): Promise<undefined> {
    if (!isNotFound(error)) throw error;
    try {
      await stat(dirname(this.path));
    } catch (cause) {
      throw new Error(`the directory of all jobs is away: ${messageOf(cause)}`, { cause });
    }
    // The file system may have come back in between.
    const isThere = await stat(path).then(
      () => true,
      (again) => !isNotFound(again),
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

function isNotFound(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT';
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
