import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { renameSync, statfsSync } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { type Logger, messageOf } from '@harrier/shared';

const run = promisify(execFile);
const MIB = 1024 * 1024;
/** What is on its way out begins with it. */
const GONE_PREFIX = '.gone-';
/** Between two tries to remove what is being written to. */
const REMOVAL_PAUSE_MS = 500;

/** What is left on a file system. At once: the kernel answers from memory. */
export function spaceOf(directory: string): { freeBytes: number; freeFiles: number } {
  const { bavail, bsize, files, ffree } = statfsSync(directory);
  // Some file systems have no fixed number of files, and tell 0.
  return { freeBytes: bavail * bsize, freeFiles: files > 0 ? ffree : Number.POSITIVE_INFINITY };
}

/** For people. */
export function mib(bytes: number): number {
  return Math.floor(bytes / MIB);
}

/**
 * Removes what callers' code wrote and may be changing right now. `rm` goes by open directories and follows no link, also
 * none that takes a directory's place meanwhile; Node's own removal goes by paths.
 */
export async function removeTree(path: string): Promise<void> {
  await run('rm', ['-rf', '--one-file-system', '--', path]);
}

/** Everything that was written to the file system of a directory is on the disk. */
export async function syncFileSystem(directory: string): Promise<void> {
  await run('sync', ['-f', directory]);
}

/** The whole text or none of it, also after a crash. */
export async function writeDurably(path: string, text: string): Promise<void> {
  const temporary = `${path}.${randomUUID()}`;
  const file = await open(temporary, 'wx', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
}

/**
 * Takes a directory out of sight at once, so that nobody begins to use it in between, then from the disk.
 * @param options.tries how often its removal is tried, half a second apart: of what somebody may still write to. Default: 1
 * @param options.signal there is no further try after it
 */
export async function discard(
  path: string,
  logger: Logger,
  options: { tries?: number; signal?: AbortSignal } = {},
): Promise<void> {
  const gone = join(dirname(path), `${GONE_PREFIX}${randomUUID()}`);
  try {
    renameSync(path, gone);
    await removeInTries(gone, options);
  } catch (error) {
    // Gone already, or a file beside the tenants.
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return;
    logger.warn({ path, reason: messageOf(error) }, 'a directory could not be removed');
  }
}

async function removeInTries(
  path: string,
  { tries = 1, signal }: { tries?: number; signal?: AbortSignal },
): Promise<void> {
  for (let left = tries - 1; ; left--) {
    try {
      await removeTree(path);
      return;
    } catch (error) {
      if (left <= 0) throw error;
    }
    await sleep(REMOVAL_PAUSE_MS, undefined, signal === undefined ? {} : { signal });
  }
}
