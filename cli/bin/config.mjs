// What the start program reads of its environment. Plain JavaScript, unlike `src/config.ts`: it is needed before compiled
// TypeScript can be cached, and stripping the types of one file takes longer than the rest of the start.
import { homedir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';

/** @returns {string} where compiled code is kept: not Node's default in the shared /tmp, where others could put code */
export function compileCacheDirectory() {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'harrier', 'compile-cache');
}
