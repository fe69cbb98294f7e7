import { constants } from 'node:fs';
import { access, chmod, copyFile, mkdir, realpath, rename, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

/** A program of the host on the search path; undefined when there is none. */
export async function findTool(name: string, searchPath: string): Promise<string | undefined> {
  for (const directory of searchPath.split(':')) {
    if (directory === '') continue;
    const path = join(directory, name);
    try {
      await access(path, constants.X_OK);
      return await realpath(path);
    } catch {
      // Not here.
    }
  }
  return undefined;
}

/** Whether everybody can reach and execute a file. */
export async function isOpenToAll(path: string): Promise<boolean> {
  for (let at = path; at !== '/'; at = dirname(at)) if (((await stat(at)).mode & 0o001) === 0) return false;
  return true;
}

/**
 * A program where the sandbox's user can reach it: the program itself, or a copy of it.
 * @param directory for copies; open to everybody, and written to by this process alone
 */
export async function reachableTool(path: string, directory: string, mustBeOpen: boolean): Promise<string> {
  if (!mustBeOpen || (await isOpenToAll(path))) return path;
  await mkdir(directory, { recursive: true, mode: 0o755 });
  const copy = join(directory, basename(path));
  const temporary = `${copy}.${process.pid}`;
  await copyFile(path, temporary);
  await chmod(temporary, 0o755);
  await rename(temporary, copy);
  return copy;
}
