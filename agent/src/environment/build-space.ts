import { randomUUID } from 'node:crypto';
import { chown, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { HarrierError, type Logger, messageOf } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { directorySize } from './directory-size.ts';
import { discard, mib, spaceOf } from './disk.ts';
import { EnvironmentError } from './environment.ts';

/** What a directory that is being built begins with; a key never does. */
const BUILD_PREFIX = '.build-';
export const TREE = 'tree';
/** What the names of the directories begin with in which builds keep downloads. */
export const CACHE = '.cache';
const CLOSED_CACHE = `${CACHE}-closed`;
/** How often the disk is asked for what is left while something is built: what is written meanwhile goes below the floor. */
const WATCH_MS = 100;
/** How often a build is looked at for what it takes on the disk: each of its files is. */
const MEASURE_MS = 2_000;
/** Files that builds leave room for on the disk: empty ones take no bytes. */
const MIN_FREE_FILES = 10_000;
/** For so long after a build of a tenant its next one begins faster. */
const SPARE_MS = 5 * 60_000;
/** A tenant is a part of paths. */
const TENANT = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$/;

/** Where a build writes. */
export interface BuildDirectories {
  /** Becomes the environment. */
  tree: string;
  /** Packages that this tenant's builds keep; never seen by running code. */
  cache: string;
  /** The same of steps that have a password, in which nobody's code runs: nobody's code may have written to it either. */
  closedCache: string;
  /** A step can write no file that is longer. */
  maxFileBytes: number;
}

/**
 * Starts what a build in these directories begins with.
 * @returns ends it, when no build came
 */
export type StartAhead = (directories: BuildDirectories) => () => void;

/** Directories for a build that is to come. */
interface Spare {
  tenant: string;
  directory: string;
  end: () => void;
  timer: NodeJS.Timeout;
}

export interface BuildSpaceOptions {
  /** Of the store. */
  directory: string;
  /** Bytes of all environments together, at most. */
  maxBytes: number;
  /** Bytes that stay free on the disk. */
  minFreeBytes: number;
  /** Who writes into directories that are being built; undefined: this process's own user. */
  builder: { uid: number; gid: number } | undefined;
  logger: Logger;
}

/** Whether a tenant's name can be that of a directory; what begins with a dot belongs to whoever owns the store. */
export function isTenant(name: string): boolean {
  return TENANT.test(name);
}

/** Directories for builds, and the disk that they must not fill. */
export class BuildSpace {
  readonly #options: BuildSpaceOptions;
  /** How many builds of a tenant go on. */
  readonly #building = new Map<string, number>();
  /** Tenants whose downloads must not be kept. */
  readonly #spoiled = new Set<string>();
  /** Bytes of what the builds of a tenant keep, as they were measured last. */
  readonly #cacheBytes = new Map<string, number>();
  /** One for all tenants: that of the last build. */
  #spare: Spare | undefined;

  constructor(options: BuildSpaceOptions) {
    this.#options = options;
  }

  /** Something of a tenant is being built: what its builds keep of downloads is in use. */
  isBusy(tenant: string): boolean {
    return this.#building.has(tenant);
  }

  /** What all builds keep of downloads takes. */
  get cacheBytes(): number {
    let bytes = 0;
    for (const one of this.#cacheBytes.values()) bytes += one;
    return bytes;
  }

  /** Counts what the builds of a tenant keep; what cannot be measured is not kept. */
  async countCache(tenant: string): Promise<void> {
    const { cache, closedCache } = this.directoriesOf(tenant, '');
    try {
      this.#cacheBytes.set(tenant, (await this.measure(cache)) + (await this.measure(closedCache)));
    } catch {
      this.#spoiled.add(tenant);
      if (!this.isBusy(tenant)) await this.#dropSpoiled(tenant);
    }
  }

  /** Drops what the builds of a tenant keep, unless one goes on that may be using it. */
  async dropCache(tenant: string): Promise<void> {
    if (this.isBusy(tenant)) return;
    if (this.#spare?.tenant === tenant) {
      await this.dropSpare();
      if (this.isBusy(tenant)) return;
    }
    this.#cacheBytes.delete(tenant);
    const { cache, closedCache } = this.directoriesOf(tenant, '');
    // Both are out of sight before the next build can begin.
    await Promise.all([cache, closedCache].map((one) => discard(one, this.#options.logger)));
  }

  /** Makes the directories of a tenant's next build, and starts what it begins with. They wait for it for some minutes. */
  async keepSpare(tenant: string, startAhead: StartAhead): Promise<void> {
    if (this.#spare?.tenant === tenant || this.isBusy(tenant) || this.whyFull() !== undefined) return;
    await this.dropSpare();
    this.#begin(tenant);
    try {
      const { directory, directories } = await this.#make(tenant);
      if (this.#spare !== undefined) {
        await discard(directory, this.#options.logger);
        return;
      }
      const timer = setTimeout(() => void this.dropSpare(), SPARE_MS).unref();
      this.#spare = { tenant, directory, end: startAhead(directories), timer };
    } finally {
      await this.#ended(tenant);
    }
  }

  /** What waits for the next build is ended and removed. */
  async dropSpare(): Promise<void> {
    const spare = this.#takeSpare();
    spare?.end();
    if (spare !== undefined) await discard(spare.directory, this.#options.logger);
  }

  #takeSpare(): Spare | undefined {
    const spare = this.#spare;
    clearTimeout(spare?.timer);
    this.#spare = undefined;
    return spare;
  }

  /** Where a build writes that is, or becomes, this tree. */
  directoriesOf(tenant: string, tree: string): BuildDirectories {
    const { directory, maxBytes, minFreeBytes } = this.#options;
    const maxFileBytes = Math.max(0, Math.min(maxBytes, spaceOf(directory).freeBytes - minFreeBytes));
    const own = join(directory, tenant);
    return { tree, cache: join(own, CACHE), closedCache: join(own, CLOSED_CACHE), maxFileBytes };
  }

  /**
   * Bytes that a build has written. The message of what cannot be measured is for its caller.
   * @throws EnvironmentError for what a build can make to hide its size: paths that are too long, directories closed to everybody
   */
  async measure(directory: string): Promise<number> {
    try {
      return await directorySize(directory);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      const message = `what the build has written cannot be measured (${code ?? 'no reason is known'})`;
      throw new EnvironmentError(Code.ENVIRONMENT_FAILED, message, { cause: error });
    }
  }

  /** Why nothing can be built now; undefined when it can. */
  whyFull(): string | undefined {
    const { directory, minFreeBytes } = this.#options;
    const { freeBytes, freeFiles } = spaceOf(directory);
    if (freeFiles < MIN_FREE_FILES) return `the disk of ${directory} has room for ${freeFiles} more files only`;
    if (freeBytes >= minFreeBytes) return undefined;
    return `the disk of ${directory} has ${mib(freeBytes)} MiB left, and ${mib(minFreeBytes)} MiB stay free`;
  }

  /**
   * Work that writes to the disk: refused when that is full, stopped when it takes too much. The directory, with the tree in
   * it, is left to the work, which moves or removes it.
   * @throws EnvironmentError when the disk has no room; what `work` throws
   */
  async run<Result>(
    tenant: string,
    signal: AbortSignal,
    work: (directory: string, directories: BuildDirectories, signal: AbortSignal) => Promise<Result>,
  ): Promise<Result> {
    const full = this.whyFull();
    if (full !== undefined) throw new EnvironmentError(Code.ENVIRONMENT_FAILED, full);
    this.#begin(tenant);
    const spare = this.#spare?.tenant === tenant ? this.#takeSpare() : undefined;
    try {
      const { directory, directories } = await this.#make(tenant, spare?.directory);
      return await this.#watch(tenant, directories, signal, async (watched) => {
        return await work(directory, directories, watched);
      });
    } finally {
      spare?.end();
      await this.#ended(tenant);
    }
  }

  /**
   * Work in a tree that is there, with what its tenant's builds keep.
   * @throws as `run`
   */
  async again(
    tenant: string,
    tree: string,
    signal: AbortSignal,
    work: (directories: BuildDirectories, signal: AbortSignal) => Promise<void>,
  ): Promise<void> {
    this.#begin(tenant);
    try {
      const directories = this.directoriesOf(tenant, tree);
      await this.#makeCaches(directories);
      await this.#watch(tenant, directories, signal, (watched) => work(directories, watched));
    } finally {
      await this.#ended(tenant);
    }
  }

  /** From here on its cache is left alone. */
  #begin(tenant: string): void {
    this.#building.set(tenant, (this.#building.get(tenant) ?? 0) + 1);
  }

  /** What has become too large, or cannot be measured, would stop every later build of its tenant. */
  async #ended(tenant: string): Promise<void> {
    const others = (this.#building.get(tenant) ?? 0) - 1;
    if (others > 0) this.#building.set(tenant, others);
    else this.#building.delete(tenant);
    if (others <= 0) await this.#dropSpoiled(tenant);
  }

  async #dropSpoiled(tenant: string): Promise<void> {
    if (this.#spoiled.delete(tenant)) await this.dropCache(tenant);
  }

  /** Work in directories that are there: stopped when it fills the disk or takes too much. @throws as `run` */
  async #watch<Result>(
    tenant: string,
    directories: BuildDirectories,
    signal: AbortSignal,
    work: (signal: AbortSignal) => Promise<Result>,
  ): Promise<Result> {
    const stop = new AbortController();
    const stopFor = (why: string) => {
      clearInterval(space);
      stop.abort(new EnvironmentError(Code.ENVIRONMENT_FAILED, `the build was stopped: ${why}`));
    };
    const space = setInterval(() => {
      try {
        const full = this.whyFull();
        if (full !== undefined) stopFor(full);
      } catch (error) {
        stopFor(`the disk cannot be asked for its space (${(error as NodeJS.ErrnoException).code})`);
      }
    }, WATCH_MS).unref();
    let timer: NodeJS.Timeout | undefined;
    const look = async () => {
      const fault = await this.#whyTooLarge(tenant, directories).catch(messageOf);
      if (fault !== undefined) stopFor(fault);
      else timer?.refresh();
    };
    timer = setTimeout(() => void look(), MEASURE_MS).unref();
    try {
      return await work(AbortSignal.any([signal, stop.signal]));
    } catch (error) {
      throw stop.signal.aborted ? stop.signal.reason : error;
    } finally {
      clearInterval(space);
      clearTimeout(timer);
      timer = undefined;
    }
  }

  /** Why a build must not go on; undefined when it may. @throws EnvironmentError for what cannot be measured */
  async #whyTooLarge(tenant: string, { tree, cache, closedCache }: BuildDirectories): Promise<string | undefined> {
    const { maxBytes } = this.#options;
    const tooLarge = `it takes more than the ${mib(maxBytes)} MiB of all environments`;
    for (const one of [cache, closedCache]) {
      const bytes = await this.measure(one).catch((error) => {
        this.#spoiled.add(tenant);
        throw error;
      });
      if (bytes <= maxBytes) continue;
      this.#spoiled.add(tenant);
      return tooLarge;
    }
    return (await this.measure(tree)) > maxBytes ? tooLarge : undefined;
  }

  /** @param spare a directory that was made here before */
  async #make(tenant: string, spare?: string): Promise<{ directory: string; directories: BuildDirectories }> {
    if (!isTenant(tenant)) {
      throw new HarrierError('invalid_argument', `the tenant "${tenant}" cannot be the name of a directory`);
    }
    const parent = join(this.#options.directory, tenant);
    const directory = spare ?? join(parent, `${BUILD_PREFIX}${randomUUID()}`);
    const directories = this.directoriesOf(tenant, join(directory, TREE));
    try {
      await mkdir(parent, { recursive: true, mode: 0o711 });
      await mkdir(directory, { recursive: true, mode: 0o711 });
      await this.#makeWritable(directories.tree);
      await this.#makeCaches(directories);
    } catch (error) {
      await discard(directory, this.#options.logger);
      throw error;
    }
    return { directory, directories };
  }

  async #makeCaches({ cache, closedCache }: BuildDirectories): Promise<void> {
    for (const path of [cache, closedCache]) await this.#makeWritable(path);
  }

  async #makeWritable(path: string): Promise<void> {
    const { builder } = this.#options;
    await mkdir(path, { recursive: true, mode: 0o755 });
    if (builder !== undefined) await chown(path, builder.uid, builder.gid);
  }
}
