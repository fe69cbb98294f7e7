import { randomUUID } from 'node:crypto';
import { chown, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { HarrierError } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { directorySize } from './directory-size.ts';
import { mib, spaceOf } from './disk.ts';
import { EnvironmentError } from './environment.ts';

/** What a directory that is being built begins with; a key never does. */
const BUILD_PREFIX = '.build-';
export const TREE = 'tree';
export const CACHE = '.cache';
/** How often a build is looked at for what it takes on the disk. */
const WATCH_MS = 2_000;
/** Files that builds leave room for on the disk: empty ones take no bytes. */
const MIN_FREE_FILES = 10_000;
/** A tenant is a part of paths. */
const TENANT = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$/;

/** Where a build writes. */
export interface BuildDirectories {
  /** Becomes the environment. */
  tree: string;
  /** Packages that this tenant's builds keep; never seen by running code. */
  cache: string;
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
}

/** Whether a tenant's name can be that of a directory; what begins with a dot belongs to whoever owns the store. */
export function isTenant(name: string): boolean {
  return TENANT.test(name);
}

/** Directories for builds, and the disk that they must not fill. */
export class BuildSpace {
  readonly #options: BuildSpaceOptions;
  #building = 0;

  constructor(options: BuildSpaceOptions) {
    this.#options = options;
  }

  /** Something is being built: what builds keep of downloads is in use. */
  get busy(): boolean {
    return this.#building > 0;
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
    // From here on caches are left alone.
    this.#building++;
    try {
      const { directory, directories } = await this.#make(tenant);
      return await this.watch(directories, signal, async (watched) => await work(directory, directories, watched));
    } finally {
      this.#building--;
    }
  }

  /** Work in directories that are there: stopped when it fills the disk or takes too much. @throws as `run` */
  async watch<Result>(
    directories: BuildDirectories,
    signal: AbortSignal,
    work: (signal: AbortSignal) => Promise<Result>,
  ): Promise<Result> {
    const stop = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    const look = async () => {
      const fault = await this.#whyStop(directories).catch(() => undefined);
      if (fault !== undefined) stop.abort(new EnvironmentError(Code.ENVIRONMENT_FAILED, fault));
      else timer?.refresh();
    };
    timer = setTimeout(() => void look(), WATCH_MS).unref();
    try {
      return await work(AbortSignal.any([signal, stop.signal]));
    } catch (error) {
      throw stop.signal.aborted ? stop.signal.reason : error;
    } finally {
      clearTimeout(timer);
      timer = undefined;
    }
  }

  /** Why a build must not go on; undefined when it may. */
  async #whyStop({ tree, cache }: BuildDirectories): Promise<string | undefined> {
    const { maxBytes } = this.#options;
    const full = this.whyFull();
    if (full !== undefined) return `the build was stopped: ${full}`;
    for (const directory of [tree, cache]) {
      if ((await directorySize(directory)) > maxBytes) {
        return `the build was stopped: it takes more than the ${mib(maxBytes)} MiB of all environments`;
      }
    }
    return undefined;
  }

  async #make(tenant: string): Promise<{ directory: string; directories: BuildDirectories }> {
    if (!isTenant(tenant)) {
      throw new HarrierError('invalid_argument', `the tenant "${tenant}" cannot be the name of a directory`);
    }
    const parent = join(this.#options.directory, tenant);
    const directory = join(parent, `${BUILD_PREFIX}${randomUUID()}`);
    const directories = { tree: join(directory, TREE), cache: join(parent, CACHE) };
    await mkdir(parent, { recursive: true, mode: 0o711 });
    await mkdir(directory, { mode: 0o711 });
    const { builder } = this.#options;
    for (const path of [directories.tree, directories.cache]) {
      await mkdir(path, { recursive: true, mode: 0o755 });
      if (builder !== undefined) await chown(path, builder.uid, builder.gid);
    }
    return { directory, directories };
  }
}
