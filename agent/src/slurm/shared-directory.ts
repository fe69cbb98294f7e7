import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { copyFile, mkdir, open, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { launcherBuild } from '../launcher/launcher-build.ts';
import { JobDirectory } from './job-directory.ts';
import { BUILD_FILE, removeOldBuilds } from './old-builds.ts';

const RUNTIME = fileURLToPath(new URL('../../runtime/', import.meta.url));
/** A renewal that took longer than this to write says too much, and is written again. */
const SLOW_WRITE_MS = 500;
const MAX_WRITES = 5;

/**
 * What an agent has on the file system that it shares with the nodes of a cluster:
 *
 *   runtime/BUILD/           the runtime's files, of each version of an agent that is here; see old-builds.ts
 *   agents/ID/environments/  see environment-store.ts
 *   agents/ID/build          the agent's own of these
 *   agents/ID/lease.json     until when the agent owns its attempts
 *   agents/ID/jobs/E.A/      an attempt; see job-directory.ts
 */
export class SharedDirectory {
  readonly #root: string;
  readonly #agent: string;
  readonly #build = launcherBuild(RUNTIME, []);
  #renewals = 0;
  #writing: Promise<void> | undefined;
  #written = Number.NaN;

  /**
   * @param root the shared directory
   * @param dataDir of the agent, which keeps its name there
   * @throws Error when that name cannot be read or written
   */
  constructor(root: string, dataDir: string) {
    this.#root = root;
    this.#agent = join(root, 'agents', ownName(dataDir));
  }

  get runtime(): string {
    return join(this.#root, 'runtime', this.#build);
  }

  get environments(): string {
    return join(this.#agent, 'environments');
  }

  get lease(): string {
    return join(this.#agent, 'lease.json');
  }

  job(name: string): JobDirectory {
    return new JobDirectory(join(this.#agent, 'jobs', name));
  }

  /**
   * Makes what is missing.
   * @param hasJobs jobs of this agent are there: without their directory, this is not the file system that it should be
   * @throws Error of the file system
   */
  async open(hasJobs: boolean): Promise<void> {
    if (hasJobs && !(await isThere(join(this.#agent, 'jobs')))) {
      throw new Error(
        `${this.#agent} is missing, where jobs of this agent are; is the file system mounted? (If it is gone for good, cancel their executions)`,
      );
    }
    // The user of the sandboxes, where that is another one, reads environments there.
    await mkdir(this.#agent, { recursive: true, mode: 0o711 });
    // Before the directory without which nobody removes builds, and before it is seen whether the build is there.
    await writeFile(join(this.#agent, BUILD_FILE), `${this.#build}\n`);
    await mkdir(join(this.#agent, 'jobs'), { recursive: true, mode: 0o700 });
    if (await isThere(this.runtime)) return;
    const fresh = `${this.runtime}.${randomUUID().slice(0, 8)}`;
    await mkdir(fresh, { recursive: true });
    for (const name of await readdir(RUNTIME)) {
      if (name.endsWith('.py')) await copyFile(join(RUNTIME, name), join(fresh, name));
    }
    try {
      await rename(fresh, this.runtime);
    } catch (error) {
      // Another agent was faster.
      await rm(fresh, { recursive: true, force: true });
      if (!(await isThere(this.runtime))) throw error;
    }
  }

  /** Removes the runtime of versions that nobody uses any more. @returns their names. @throws Error of the file system */
  async removeOldBuilds(): Promise<string[]> {
    return await removeOldBuilds(this.#root, this.#build);
  }

  /** Removes attempts that are not known. */
  async removeOthers(known: (name: string) => boolean): Promise<void> {
    const directory = join(this.#agent, 'jobs');
    for (const name of await readdir(directory)) {
      if (!known(name)) await this.job(name).remove();
    }
  }

  /**
   * Writes down until when the agent owns its attempts, for the jobs; the newest one counts.
   * @param leftMs answers how long that is from now on; null: for as long as it likes
   * @throws Error of the file system
   */
  async renew(leftMs: () => number | null, graceMs: number): Promise<void> {
    this.#renewals++;
    // One at a time: a file server that hangs gets no queue of them.
    this.#writing ??= this.#renew(leftMs, graceMs).finally(() => {
      this.#writing = undefined;
    });
    await this.#writing;
  }

  async #renew(leftMs: () => number | null, graceMs: number): Promise<void> {
    for (let write = 0; write < MAX_WRITES; write++) {
      const before = performance.now();
      const renewal = this.#renewals;
      // In place: other hosts see new bytes of a file sooner than a new file. What is written never gets shorter.
      const text = JSON.stringify({ valid_ms: leftMs(), grace_ms: graceMs, id: randomUUID() }).padEnd(120);
      await writeOver(this.lease, text);
      this.#written = performance.now() - before;
      if (this.#written < SLOW_WRITE_MS && renewal === this.#renewals) return;
    }
  }
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/**
 * Kept in the data directory: other agents of the cluster share the directory, and hosts may have the same name.
 * @throws Error when what is kept is no name: with another one, this agent would not find its jobs, and with an empty one it
 * would take those of others for its own
 */
function ownName(dataDir: string): string {
  const path = join(dataDir, 'slurm', 'name');
  if (existsSync(path)) {
    const name = readFileSync(path, 'utf8').trim();
    if (UUID.test(name)) return name;
    throw new Error(
      `${path} holds ${JSON.stringify(name.slice(0, 100))} instead of the agent's UUID in the shared directory: write it there again (it is the name of the agent's directory below "agents"), or delete the file when no job of this agent is left`,
    );
  }
  mkdirSync(join(dataDir, 'slurm'), { recursive: true, mode: 0o700 });
  const name = randomUUID();
  // As a whole or not at all: a disk may be full, and a host may fail.
  writeFileSync(`${path}.new`, `${name}\n`, { mode: 0o600, flush: true });
  renameSync(`${path}.new`, path);
  return name;
}

async function writeOver(path: string, text: string): Promise<void> {
  try {
    const file = await open(path, 'r+');
    try {
      await file.write(text, 0, 'utf8');
    } finally {
      await file.close();
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    await writeFile(path, text, { mode: 0o600 });
  }
}

async function isThere(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}
