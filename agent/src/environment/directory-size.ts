import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';

const BLOCK_BYTES = 512;

/** Bytes that a directory takes on the disk; links are not followed, a file with several names counts once. */
export async function directorySize(directory: string): Promise<number> {
  const seen = new Set<bigint>();
  let bytes = 0;
  const pending = [directory];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const entries = await readdir(next, { withFileTypes: true }).catch(ignoreMissing);
    for (const entry of entries ?? []) {
      const path = join(next, entry.name);
      const status = await lstat(path, { bigint: true }).catch(ignoreMissing);
      if (status === undefined) continue;
      if (status.nlink > 1n && !status.isDirectory()) {
        if (seen.has(status.ino)) continue;
        seen.add(status.ino);
      }
      bytes += Number(status.blocks) * BLOCK_BYTES;
      if (status.isDirectory()) pending.push(path);
    }
  }
  return bytes;
}

/** A build goes on while it is measured. */
function ignoreMissing(error: unknown): undefined {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
  throw error;
}
