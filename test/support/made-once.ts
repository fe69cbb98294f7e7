import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * A file or directory that is made once and stays. It is made under another name, so that it is either whole or not there; what
 * another process has put in place meanwhile is as good.
 * @param make is given the path to make it at
 */
export function madeOnce(path: string, make: (path: string) => void): string {
  if (existsSync(path)) return path;
  mkdirSync(dirname(path), { recursive: true });
  const own = `${path}.${process.pid}`;
  try {
    make(own);
    renameSync(own, path);
  } catch (error) {
    // A directory takes the place of none that has something in it.
    if (!existsSync(path)) throw error;
  } finally {
    rmSync(own, { recursive: true, force: true });
  }
  return path;
}
