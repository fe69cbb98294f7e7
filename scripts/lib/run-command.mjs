import { spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Root of the repository. */
export const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** The environment of every command: the Node that the repository pins comes first. */
export const ENVIRONMENT = {
  ...process.env,
  PATH: `${join(ROOT, 'node_modules', '.bin')}:${process.env.PATH ?? '/usr/local/bin:/usr/bin:/bin'}`,
};

/**
 * Runs a command in the repository and answers its exit code and, with `capture`, what it wrote; else it writes to the
 * terminal. Never throws for a command that fails: a command that is not there ends with 127.
 */
export function runCommand(file, args, { capture = false, env = {} } = {}) {
  return new Promise((resolve) => {
    const child = spawn(file, args, {
      cwd: ROOT,
      env: { ...ENVIRONMENT, ...env },
      stdio: ['ignore', capture ? 'pipe' : 'inherit', capture ? 'pipe' : 'inherit'],
    });
    let output = '';
    child.stdout?.on('data', (data) => {
      output += data;
    });
    child.stderr?.on('data', (data) => {
      output += data;
    });
    child.once('error', (error) => resolve({ code: 127, output: error.message }));
    child.once('close', (code) => resolve({ code: code ?? 1, output }));
  });
}

/** What keeps a script from going on; the message tells what to do about it. */
export class SetupError extends Error {}

/** Runs a command that must succeed. @throws SetupError */
export async function mustRun(file, args, options) {
  const { code } = await runCommand(file, args, options);
  if (code !== 0) throw new SetupError(`"${[file, ...args].join(' ')}" failed; what it wrote is above`);
}
