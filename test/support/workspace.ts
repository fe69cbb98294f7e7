import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Root of the repository. */
export const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');

/** The run of vitest that this file belongs to; see clear-run.ts. */
const RUN = process.env.HARRIER_TEST_RUN ?? '0';

/**
 * The one directory of a test file: everything that the file and the processes that it starts write is below it. Others
 * may enter it, because the embedded PostgreSQL runs as a user of its own when the tests run as root.
 */
export const WORKSPACE = mkdtempSync(join(tmpdir(), `hte-${RUN}-`));
chmodSync(WORKSPACE, 0o755);

/** What the processes of this file use as `/tmp`; empty when all of them have ended well. */
const TEMPORARY = join(WORKSPACE, 'tmp');
mkdirSync(TEMPORARY);
chmodSync(TEMPORARY, 0o1777);

let counter = 0;

/** A new directory of this file, by default right below its workspace. Short, so that a unix socket's path fits. */
export function directory(name: string, parent = WORKSPACE): string {
  const path = join(parent, `${name}${++counter}`);
  mkdirSync(path, { mode: 0o755 });
  return path;
}

/** Variables for every process that a test starts: nothing of the caller's own Harrier settings. */
export function environment(extra: Record<string, string> = {}): Record<string, string> {
  return {
    PATH: process.env.PATH ?? '/usr/local/bin:/usr/bin:/bin',
    HOME: process.env.HOME ?? '/root',
    LANG: 'C.UTF-8',
    TMPDIR: TEMPORARY,
    // Sources are stripped of their types once for all files.
    NODE_COMPILE_CACHE: join(tmpdir(), 'harrier-test-compile-cache'),
    HARRIER_TEST_WORKSPACE: WORKSPACE,
    ...extra,
  };
}

/** Files that processes left in their `/tmp`. */
export function temporaryLeftovers(): string[] {
  return readdirSync(TEMPORARY);
}

export function removeWorkspace(): void {
  removeStores();
  rmSync(WORKSPACE, { recursive: true, force: true });
}

/** Of agents that run as root with a data directory of their own user. */
function removeStores(): void {
  const system = '/var/lib/harrier';
  for (const name of existsSync(system) ? readdirSync(system) : []) {
    if (ownerOf(join(system, name))?.startsWith(`${WORKSPACE}/`)) rmSync(join(system, name), { recursive: true });
  }
}

/** The data directory that a store is for; undefined where it does not say so, or another file has removed it meanwhile. */
function ownerOf(store: string): string | undefined {
  try {
    return (JSON.parse(readFileSync(join(store, 'owner.json'), 'utf8')) as { dataDir: string }).dataDir;
  } catch {
    return undefined;
  }
}
