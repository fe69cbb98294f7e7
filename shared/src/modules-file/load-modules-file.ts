import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { messageOf } from '../errors.ts';
import { byPosition, type FileProblem } from '../yaml-file/problem.ts';
import { filesOfDirectory, isDirectory } from './module-directory.ts';
import { parseModulesFile } from './parse-modules-file.ts';
import type { FileModule } from './read-module.ts';

export { byPosition, type FileProblem, formatProblem } from '../yaml-file/problem.ts';
export { requirementLines } from './read-environment.ts';
export type { FileModule } from './read-module.ts';

export interface ModulesFile {
  /** Complete with the code of the files that they name. */
  modules: FileModule[];
  /** All of them, by their place in the file. Not empty: the modules are not to be used. */
  problems: FileProblem[];
  /** Absolute paths of the code files that it names, there or not. */
  codeFiles: string[];
}

/** Reads a modules file and the code files that it names, relative to itself. Never throws: what is wrong is a problem. */
export async function loadModulesFile(path: string): Promise<ModulesFile> {
  let text: string;
  try {
    text = await readText(path);
  } catch (error) {
    return {
      modules: [],
      problems: [{ position: undefined, message: `cannot be read: ${messageOf(error)}` }],
      codeFiles: [],
    };
  }
  const { modules, problems } = parseModulesFile(text);
  const codeFiles: string[] = [];
  const base = dirname(path);
  const use = async (
    file: string,
    problem: Omit<FileProblem, 'message'> & { name: string },
    take: (text: string) => void,
  ) => {
    codeFiles.push(file);
    try {
      take(await readText(file));
    } catch (error) {
      const message = `${problem.name}: ${file} cannot be read: ${messageOf(error)}`;
      problems.push({ position: problem.position, message });
    }
  };
  for (const entry of modules) {
    const { module, codePath } = entry;
    const before = problems.length;
    if (codePath !== undefined) {
      const place = { position: entry.positionOf('path'), name: `${entry.path}.path` };
      const file = resolve(base, codePath);
      if (await isDirectory(file)) {
        codeFiles.push(file);
        try {
          for (const part of await filesOfDirectory(file, module, entry.bareEnvironment)) {
            await use(part.path, place, part.use);
          }
        } catch (error) {
          problems.push({ position: place.position, message: `${place.name}: ${messageOf(error)}` });
        }
      } else {
        await use(file, place, (text) => {
          module.code = text;
        });
      }
    }
    for (const { path: given, reader, field, name, use: take } of entry.files) {
      await use(resolve(base, given), { position: reader.positionOf(field), name }, take);
    }
    entry.incomplete ||= problems.length > before;
  }
  return { modules, problems: problems.toSorted(byPosition), codeFiles };
}

/** @throws when it is not UTF-8: code must not change on the way */
async function readText(path: string): Promise<string> {
  return new TextDecoder('utf-8', { fatal: true }).decode(await readFile(path));
}
