import { readdir, readFile, readlink, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';

/** In the directory of an agent: the build of the runtime that its jobs get. */
export const BUILD_FILE = 'build';

/** An agent that has not renewed its lease for so long is gone; should it come back, it makes its build again. */
const GONE_MS = 7 * 24 * 60 * 60_000;
/** What an agent makes just now has no other trace yet. */
const FRESH_MS = 24 * 60 * 60_000;

/**
 * Removes builds of the runtime that no agent uses any more and no job that is there: upgrades leave one each. Nothing is removed
 * while one agent's use cannot be told, because it is of an older version, or of a user whose files cannot be read.
 * @param root the shared directory
 * @param own build of this agent
 * @returns the names of those removed
 */
export async function removeOldBuilds(root: string, own: string): Promise<string[]> {
  const used = new Set([own]);
  for (const id of await readdir(join(root, 'agents'))) {
    const uses = await buildsOf(join(root, 'agents', id)).catch(() => undefined);
    if (uses === undefined) return [];
    for (const build of uses) used.add(build);
  }
  const removed: string[] = [];
  for (const build of await readdir(join(root, 'runtime'))) {
    const path = join(root, 'runtime', build);
    if (used.has(build) || (await ageMs(path)) < FRESH_MS) continue;
    await rm(path, { recursive: true, force: true });
    removed.push(build);
  }
  return removed;
}

/** Of an agent and of its jobs. @throws Error when that cannot be told */
async function buildsOf(agent: string): Promise<string[]> {
  const jobs = join(agent, 'jobs');
  const links = (await readdir(jobs)).map((name) => readlink(join(jobs, name, 'runtime')));
  const builds = (await Promise.all(links)).map((target) => basename(target));
  if ((await silenceMs(agent)) >= GONE_MS) return builds;
  return [...builds, (await readFile(join(agent, BUILD_FILE), 'utf8')).trim()];
}

/** Since an agent has written something of itself. */
async function silenceMs(agent: string): Promise<number> {
  const ages = [join(agent, 'lease.json'), join(agent, BUILD_FILE)].map((path) => {
    return ageMs(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error;
      return Number.POSITIVE_INFINITY;
    });
  });
  return Math.min(...(await Promise.all(ages)));
}

/** By the clock of the file server and that of this host, which differ by less than what it is compared to. */
async function ageMs(path: string): Promise<number> {
  return Date.now() - (await stat(path)).mtimeMs;
}
