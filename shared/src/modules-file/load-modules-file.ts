import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { messageOf } from '../errors.ts';
import { parseModulesFile } from './parse-modules-file.ts';
import { byPosition, type FileProblem } from './problem.ts';
import type { FileModule } from './read-module.ts';

export { type FileProblem, formatProblem } from './problem.ts';
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
  for (const entry of modules) {
    if (entry.codePath === undefined) continue;
    const file = resolve(dirname(path), entry.codePath);
    codeFiles.push(file);
    try {
      entry.module.code = await readText(file);
    } catch (error) {
      problems.push({
        position: entry.positionOf('path'),
        message: `${entry.path}.path: ${file} cannot be read: ${messageOf(error)}`,
      });
    }
  }
  return { modules, problems: problems.toSorted(byPosition), codeFiles };
}

/** @throws when it is not UTF-8: code must not change on the way */
async function readText(path: string): Promise<string> {
  return new TextDecoder('utf-8', { fatal: true }).decode(await readFile(path));
}
