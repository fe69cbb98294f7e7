import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Module } from '../gen/harrier/v1/module_pb.ts';
import { requirementLines } from './read-environment.ts';

/** Where the code of a module is that is a directory, in this order. */
const CODE_FILES = ['handler.py', 'main.py', '__init__.py'];

/** A file of the directory, and what its text is for. */
export interface DirectoryFile {
  path: string;
  use(text: string): void;
}

export async function isDirectory(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() === true;
}

/**
 * The files of a module that is a directory: its code, and what it says of its environment where the entry says nothing.
 * @param bare the entry names an environment without settings
 * @throws Error when there is no code in it
 */
export async function filesOfDirectory(directory: string, module: Module, bare: boolean): Promise<DirectoryFile[]> {
  const present = new Set(await readdir(directory));
  const code = CODE_FILES.find((name) => present.has(name));
  if (code === undefined) throw new Error(`${directory} has none of ${CODE_FILES.join(', ')}`);
  const files: DirectoryFile[] = [
    {
      path: join(directory, code),
      use: (text) => {
        module.code = text;
      },
    },
  ];
  const add = (name: string, use: (text: string) => void) => {
    if (bare && present.has(name)) files.push({ path: join(directory, name), use });
  };
  const kind = module.environment?.kind;
  if (kind?.case === 'venv') {
    add('requirements.txt', (text) => {
      kind.value.requirements = requirementLines(text);
    });
    add('pyproject.toml', (text) => {
      kind.value.pyproject = text;
    });
  }
  if (kind?.case === 'conda') {
    add('environment.yml', (text) => {
      kind.value.file = text;
    });
  }
  return files;
}
