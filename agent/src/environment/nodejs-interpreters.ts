import { execFile } from 'node:child_process';
import { access, realpath } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { messageOf } from '@harrier/shared';
import type { Bind } from '../launcher/messages.ts';

const run = promisify(execFile);
/** The first that tells ES modules and CommonJS apart by their syntax, from then on when asked. */
const OLDEST = [20, 10] as const;
/** The first that does so by itself. */
const DETECTS_SYNTAX = [22, 7] as const;
/** Where the sandbox has what the host has outside /usr. */
const PREFIX = '/opt/nodejs';
const ASK_TIMEOUT_MS = 10_000;
const QUESTION = 'JSON.stringify([process.versions.node, process.execPath])';

/** A Node.js of the host, as it is in a sandbox. */
export interface NodejsInterpreter {
  version: string;
  /** The program on the host, without links. */
  program: string;
  /** Of the program, in the sandbox. */
  path: string;
  /** What it takes to run what the sandbox is to run. */
  flags: readonly string[];
  /** What the sandbox does not have by itself. */
  binds: readonly Bind[];
}

/**
 * The Node.js programs on a search path, first found first, and of the others why they are none.
 * @param searchPath the operator's: what is found there is started to be asked
 */
export async function findNodejs(searchPath: string): Promise<{ found: NodejsInterpreter[]; refused: string[] }> {
  const found = new Map<string, NodejsInterpreter>();
  const refused: string[] = [];
  for (const directory of new Set(searchPath.split(':').filter((one) => one !== ''))) {
    const path = join(directory, 'node');
    const isThere = await access(path).then(
      () => true,
      () => false,
    );
    if (!isThere) continue;
    try {
      const { stdout } = await run(path, ['-p', QUESTION], { timeout: ASK_TIMEOUT_MS, env: { PATH: searchPath } });
      const [version, executable] = JSON.parse(stdout) as [string, string];
      // A shim answers with another path than its own.
      const program = await realpath(executable);
      if (isBefore(version, OLDEST)) refused.push(`${path} is ${version}, and ${OLDEST.join('.')} is the oldest`);
      else if (!found.has(program)) found.set(program, await inSandbox(program, version));
    } catch (error) {
      const { stderr } = error as { stderr?: string };
      refused.push(`${path} does not answer: ${stderr?.trim() || messageOf(error)}`);
    }
  }
  return { found: [...found.values()], refused };
}

/** An installation is bound as a whole, for its libraries; a program that lies anywhere else, alone. */
async function inSandbox(program: string, version: string): Promise<NodejsInterpreter> {
  const flags = isBefore(version, DETECTS_SYNTAX) ? ['--experimental-detect-module'] : [];
  if (program.startsWith('/usr/')) return { version, program, path: program, flags, binds: [] };
  const prefix = dirname(dirname(program));
  const isInstallation =
    basename(dirname(program)) === 'bin' &&
    (await access(join(prefix, 'lib', 'node_modules')).then(
      () => true,
      () => false,
    ));
  const path = `${PREFIX}/bin/node`;
  const bind = isInstallation ? { source: prefix, target: PREFIX } : { source: program, target: path };
  return { version, program, path, flags, binds: [{ ...bind, writable: false }] };
}

function isBefore(version: string, [major, minor]: readonly [number, number]): boolean {
  const [ownMajor = 0, ownMinor = 0] = version.split('.').map(Number);
  return ownMajor === major ? ownMinor < minor : ownMajor < major;
}
