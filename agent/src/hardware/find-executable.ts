import { constants } from 'node:fs';
import { access, readdir, stat } from 'node:fs/promises';
import { delimiter, join } from 'node:path';

/** Full path of the first executable of this name, as a shell finds it. @param searchPath as in PATH */
export async function findExecutable(name: string, searchPath: string): Promise<string | undefined> {
  for (const directory of directoriesOf(searchPath)) {
    const path = join(directory, name);
    if (await isExecutable(path)) return path;
  }
  return undefined;
}

/** Full paths of all executables whose name matches, in the order of the search path. */
export async function findExecutables(name: RegExp, searchPath: string): Promise<string[]> {
  const found: string[] = [];
  for (const directory of directoriesOf(searchPath)) {
    const entries = await readdir(directory).catch(() => []);
    for (const entry of entries.filter((candidate) => name.test(candidate)).sort()) {
      const path = join(directory, entry);
      if (await isExecutable(path)) found.push(path);
    }
  }
  return found;
}

function directoriesOf(searchPath: string): Set<string> {
  return new Set(searchPath.split(delimiter).filter((directory) => directory !== ''));
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}
