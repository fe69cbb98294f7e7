import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { HarrierError, messageOf } from './errors.ts';

const SQLITE_BUSY = 5;

/** Held until released, or until the process ends however it ends. */
export interface DirectoryLock {
  release(): void;
}

export interface DirectoryLockOptions {
  /** Who takes it, and the base of the lock's file name: `control-plane`, `agent`. */
  holder: string;
  /** Mode of the directory when it has to be made. */
  mode: number;
}

/**
 * Takes a data directory for this process, and makes it if need be. The lock is the kernel's own on a file, so that it ends
 * with the process and no stale process number is ever mistaken for a holder, in containers neither. Node has no call for
 * such locks; SQLite, which it brings along, has.
 * @throws HarrierError failed_precondition, when another process holds it
 */
export function lockDirectory(directory: string, options: DirectoryLockOptions): DirectoryLock {
  const { holder } = options;
  // Only for the message: who holds the lock.
  const holderFile = join(directory, `${holder}.pid`);
  try {
    mkdirSync(directory, { recursive: true, mode: options.mode });
    const database = new DatabaseSync(join(directory, `${holder}.lock`), { timeout: 0 });
    try {
      database.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
    } catch (error) {
      database.close();
      throw error;
    }
    writeFileSync(holderFile, `${process.pid}\n`);
    return { release: () => database.close() };
  } catch (cause) {
    const busy = (cause as { errcode?: unknown }).errcode === SQLITE_BUSY;
    const reason = busy
      ? `is in use by another ${holder} (process ${pidIn(holderFile)}); stop it or choose another data directory`
      : `cannot be used: ${messageOf(cause)}`;
    throw new HarrierError('failed_precondition', `the data directory ${directory} ${reason}`, { cause });
  }
}

function pidIn(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return 'unknown';
  }
}
