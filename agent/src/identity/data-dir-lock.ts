import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { HarrierError, messageOf } from '@harrier/shared';

const LOCK_FILE = 'agent.lock';
/** Only for the message: who holds the lock. */
const HOLDER_FILE = 'agent.pid';
const SQLITE_BUSY = 5;

/** Held until released, or until the process ends however it ends. */
export interface DataDirLock {
  release(): void;
}

/**
 * Takes a data directory for this process, and makes it if need be: two agents with one identity would replace each
 * other's link without end. The lock is the kernel's own on a file, so that it ends with the process and no stale process
 * number is ever mistaken for an agent. Node has no call for such locks; SQLite, which it brings along, has.
 * @throws HarrierError failed_precondition, when another agent holds it
 */
export function lockDataDir(dataDir: string): DataDirLock {
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    const database = new DatabaseSync(join(dataDir, LOCK_FILE), { timeout: 0 });
    try {
      database.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
    } catch (error) {
      database.close();
      throw error;
    }
    writeFileSync(join(dataDir, HOLDER_FILE), `${process.pid}\n`);
    return { release: () => database.close() };
  } catch (cause) {
    const busy = (cause as { errcode?: unknown }).errcode === SQLITE_BUSY;
    const reason = busy
      ? `is in use by another agent (process ${holderOf(dataDir)}); give this one its own with HARRIER_AGENT_DATA_DIR`
      : `cannot be used: ${messageOf(cause)}`;
    throw new HarrierError('failed_precondition', `the data directory ${dataDir} ${reason}`, { cause });
  }
}

function holderOf(dataDir: string): string {
  try {
    return readFileSync(join(dataDir, HOLDER_FILE), 'utf8').trim();
  } catch {
    return 'unknown';
  }
}
