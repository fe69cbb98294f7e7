import { createHash } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { HarrierError, type Logger, lockDirectory, messageOf } from '@harrier/shared';
import { discard, writeDurably } from './disk.ts';

/** In a store outside its agent's data directory. */
const OWNER = 'owner.json';
const NAME = /^environments-[0-9a-f]{16}$/;

/** Whose store it is. */
interface Owner {
  dataDir: string;
  /** Of the file system that the data directory is on. */
  device: number;
}

/** The store of an agent whose data directory the sandbox cannot enter, in a directory for those of all agents. */
export function storeOf(dataDir: string, systemDirectory: string): string {
  const name = createHash('sha256').update(dataDir).digest('hex').slice(0, 16);
  return join(systemDirectory, `environments-${name}`);
}

/** Says in a store whose it is; a later agent removes it when that is gone. */
export async function claimStore(store: string, dataDir: string): Promise<void> {
  const owner: Owner = { dataDir, device: (await stat(dataDir)).dev };
  await writeDurably(join(store, OWNER), JSON.stringify(owner));
}

/**
 * Removes the stores of agents whose data directory was removed: nobody else knows of them. A store that does not say whose
 * it is, that is in use, or whose owner's file system is not there now, stays.
 */
export async function removeOrphanedStores(systemDirectory: string, logger: Logger): Promise<void> {
  for (const name of await readdir(systemDirectory)) {
    const store = join(systemDirectory, name);
    if (!NAME.test(name) || !(await isOrphaned(store, systemDirectory))) continue;
    try {
      const lock = lockDirectory(store, { holder: 'agent', mode: 0o711 });
      try {
        // An agent may have come and gone before the lock was taken.
        if (!(await isOrphaned(store, systemDirectory))) continue;
        logger.info({ store }, 'removing the environments of an agent whose data directory is gone');
        await discard(store, logger);
      } finally {
        lock.release();
      }
    } catch (error) {
      if (!(error instanceof HarrierError)) throw error;
      logger.info({ store, reason: messageOf(error) }, 'environments of another agent stay');
    }
  }
}

async function isOrphaned(store: string, systemDirectory: string): Promise<boolean> {
  const owner = await ownerOf(store);
  if (owner === undefined || storeOf(owner.dataDir, systemDirectory) !== store) return false;
  const there = await statOf(owner.dataDir);
  if (there !== undefined) return false;
  // What is left of its path must be of the same file system: else that is not mounted, and the directory may come back.
  for (let path = dirname(owner.dataDir); ; path = dirname(path)) {
    const left = await statOf(path);
    if (left !== undefined) return left.dev === owner.device;
    if (path === '/') return false;
  }
}

async function ownerOf(store: string): Promise<Owner | undefined> {
  try {
    const owner = JSON.parse(await readFile(join(store, OWNER), 'utf8')) as Partial<Owner>;
    const { dataDir, device } = owner;
    return typeof dataDir === 'string' && dataDir.startsWith('/') && typeof device === 'number'
      ? { dataDir, device }
      : undefined;
  } catch {
    return undefined;
  }
}

/** Undefined for what is not there; what cannot be looked at is not known to be gone. */
async function statOf(path: string): Promise<{ dev: number } | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
