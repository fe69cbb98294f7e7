import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { CliError, EXIT } from '../failure.ts';
import { isTerminal, paint, writeError } from '../output/terminal.ts';

const INSTALL =
  'install it with `apt-get install bubblewrap` (Debian, Ubuntu), `dnf install bubblewrap` (Fedora) or `apk add bubblewrap` (Alpine)';
const RISK = 'code then runs as your own user, with your files and your network';

/**
 * Whether the agent may run code without a sandbox: only where bubblewrap is missing, and only when the user said so, by
 * flag or when asked at a terminal.
 * @throws CliError that says what to install
 */
export async function decideSandbox(allowed: boolean, searchPath: string): Promise<{ unsandboxed: boolean }> {
  if (allowed) {
    if (!(await hasBubblewrap(searchPath))) await warn();
    return { unsandboxed: true };
  }
  if (await hasBubblewrap(searchPath)) return { unsandboxed: false };
  const problem = 'bubblewrap (bwrap) is not on PATH, so code cannot be run in a sandbox';
  if (!isTerminal(process.stdin) || !isTerminal(process.stderr)) {
    throw new CliError(`${problem}\n${INSTALL},\nor accept that ${RISK}: --allow-unsandboxed`, EXIT.failed);
  }
  await writeError(`harrier: ${problem}.\n${INSTALL}.\n`);
  if (!(await ask(`Go on without a sandbox? ${RISK}. [y/N] `))) throw new CliError('nothing was started', EXIT.failed);
  return { unsandboxed: true };
}

async function warn(): Promise<void> {
  const warning = paint(['bold', 'yellow'], 'WARNING', process.stderr);
  await writeError(`${warning} bubblewrap is missing and --allow-unsandboxed is given: ${RISK}.\n`);
}

async function ask(question: string): Promise<boolean> {
  const prompt = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return /^y(es)?$/i.test((await prompt.question(question)).trim());
  } finally {
    prompt.close();
  }
}

async function hasBubblewrap(searchPath: string): Promise<boolean> {
  for (const directory of searchPath.split(delimiter).filter(Boolean)) {
    try {
      await access(join(directory, 'bwrap'), constants.X_OK);
      return true;
    } catch {
      // Not in this directory.
    }
  }
  return false;
}
