import { execFile } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { renameSync } from 'node:fs';
import { chown, lstat, mkdir, open, readdir, readFile, rename, statfs, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { HarrierError, type Logger, messageOf } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { SharedTasks, type TaskEvents } from '../tasks/shared-tasks.ts';
import { directorySize } from './directory-size.ts';
import { EnvironmentError } from './environment.ts';

const run = promisify(execFile);
const MANIFEST = 'manifest.json';
const TREE = 'tree';
const CACHE = '.cache';
const BUILD_PREFIX = '.build-';
const GONE_PREFIX = '.gone-';
/** How often a build is looked at for what it takes on the disk. */
const WATCH_MS = 2_000;
/** What is used often need not be written down each time: it only orders the evictions after a restart. */
const TOUCH_MS = 60_000;
/** Files that builds leave room for on the disk: empty ones take no bytes. */
const MIN_FREE_FILES = 10_000;
const FORMAT = 1;
/** A tenant is a part of paths. */
const TENANT = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$/;

/** What is known of a stored environment. */
export interface Manifest {
  format: number;
  /** Differs when the same environment is built again. */
  build: string;
  kind: string;
  /** What was installed, as text; see `Environment` of the schema. */
  lock: string;
  /** Digests of unresolved requests that led to it. */
  requests: string[];
  sizeBytes: number;
  /** What the provider needs to run it. */
  facts: Record<string, string>;
}

/** An environment in the store, held: it is not evicted before `release`. */
export interface HeldEnvironment {
  /**
   * Names this very directory: what runs in an environment that was evicted must not be taken for one in the environment
   * that was built again in its place.
   */
  readonly key: string;
  /** What is mounted at /environment. */
  readonly tree: string;
  readonly manifest: Manifest;
  /** A warm interpreter may be started in it under this key; it is retired when the environment is evicted. */
  runsAs(startKey: string): void;
  release(): void;
}

interface Entry {
  tenant: string;
  key: string;
  manifest: Manifest;
  holders: number;
  usedMs: number;
  touchedMs: number;
  startKeys: Set<string>;
}

export interface EnvironmentStoreOptions {
  /** Of this store alone. */
  directory: string;
  /** Bytes of all environments together, at most; the least recently used ones make room. */
  maxBytes: number;
  /** Bytes that stay free on the disk. */
  minFreeBytes: number;
  /** Who writes into directories that are being built; undefined: this process's own user. */
  builder: { uid: number; gid: number } | undefined;
  /** Ends the warm interpreter of an evicted environment, which would keep its files on the disk. */
  retire: (tenant: string, startKey: string) => void;
  logger: Logger;
}

/** Where a build writes. */
export interface BuildDirectories {
  /** Becomes the environment. */
  tree: string;
  /** Packages that this tenant's builds keep; never seen by running code. */
  cache: string;
}

/**
 * Prepared environments on disk: `TENANT/KEY/tree`, beside it a manifest that is written last. The key tells everything
 * that shapes an environment, so one that is there never changes. What a build leaves when it is torn is removed at the next
 * start. What lies in a tree was written by code of callers: it is counted and removed without following links.
 */
export class EnvironmentStore {
  readonly #options: EnvironmentStoreOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #builds = new SharedTasks<Entry>();
  #building = 0;

  private constructor(options: EnvironmentStoreOptions) {
    this.#options = options;
  }

  /**
   * Opens the store and removes what torn builds have left. Nothing is evicted before the first build: calls of a former
   * agent may still run.
   */
  static async open(options: EnvironmentStoreOptions): Promise<EnvironmentStore> {
    const store = new EnvironmentStore(options);
    await mkdir(options.directory, { recursive: true, mode: 0o711 });
    for (const tenant of await readdir(options.directory)) {
      const directory = join(options.directory, tenant);
      // What begins with a dot belongs to whoever owns the directory.
      if (!TENANT.test(tenant) || !(await lstat(directory)).isDirectory()) continue;
      for (const name of await readdir(directory)) if (name !== CACHE) await store.#recover(tenant, name);
    }
    return store;
  }

  /** Key of an environment: SHA-256 of everything that shapes it. */
  static keyOf(parts: readonly unknown[]): string {
    return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
  }

  /** Bytes of all environments. */
  get sizeBytes(): number {
    let bytes = 0;
    for (const { manifest } of this.#entries.values()) bytes += manifest.sizeBytes;
    return bytes;
  }

  /** From memory: no file is touched. */
  hold(tenant: string, key: string): HeldEnvironment | undefined {
    const entry = this.#entries.get(idOf(tenant, key));
    return entry === undefined ? undefined : this.#held(entry);
  }

  /** Everything that is there now. */
  holdAll(): { release(): void } {
    const all = [...this.#entries.values()].map((entry) => this.#held(entry));
    return {
      release: () => {
        for (const held of all) held.release();
      },
    };
  }

  /** The environment that an unresolved request has led to before. */
  holdByRequest(tenant: string, request: string): HeldEnvironment | undefined {
    for (const entry of this.#entries.values()) {
      if (entry.tenant === tenant && entry.manifest.requests.includes(request)) return this.#held(entry);
    }
    return undefined;
  }

  /** Why nothing can be built now; undefined when it can. */
  async whyFull(): Promise<string | undefined> {
    const { directory, minFreeBytes } = this.#options;
    const { files, ffree } = await statfs(directory);
    // Some file systems have no fixed number of files, and tell 0.
    if (files > 0 && ffree < MIN_FREE_FILES) return `the disk of ${directory} has room for ${ffree} more files only`;
    const free = await freeBytes(directory);
    if (free >= minFreeBytes) return undefined;
    return `the disk of ${directory} has ${mib(free)} MiB left, and ${mib(minFreeBytes)} MiB stay free`;
  }

  /**
   * Builds an environment, or waits for the build that goes on.
   * @param build fills the tree; the environment is there when it resolves, and nothing of it when it rejects
   * @throws EnvironmentError when the disk has no room; what `build` throws; the signal's reason when it is aborted
   */
  async build(
    tenant: string,
    key: string,
    about: Pick<Manifest, 'kind' | 'lock' | 'facts'> & { request: string | undefined },
    events: TaskEvents,
    signal: AbortSignal,
    build: (directories: BuildDirectories, events: TaskEvents, signal: AbortSignal) => Promise<void>,
  ): Promise<HeldEnvironment> {
    const id = idOf(tenant, key);
    while (true) {
      const known = this.#entries.get(id);
      if (known !== undefined) {
        await this.#addRequest(known, about.request);
        return this.#held(known);
      }
      const entry = await this.#builds.run(id, events, signal, async (told, stop) => {
        // The one before may have come to its end although nobody waited for it any more.
        const before = this.#entries.get(id);
        if (before !== undefined) return before;
        const built = await this.#build(tenant, key, about, told, stop, build);
        await this.#makeRoom(built);
        return built;
      });
      // It may have been evicted before this turn came.
      if (this.#entries.get(id) === entry) return this.#held(entry);
    }
  }

  /**
   * Directories for work that does not become an environment: resolving. Removed when the work is over.
   * @throws EnvironmentError when the disk has no room; what `work` throws
   */
  async scratch<Result>(
    tenant: string,
    signal: AbortSignal,
    work: (directories: BuildDirectories, signal: AbortSignal) => Promise<Result>,
  ): Promise<Result> {
    return await this.#inBuildDirectory(tenant, signal, async (directory, directories, watched) => {
      try {
        return await work(directories, watched);
      } finally {
        await this.#remove(tenant, directory);
      }
    });
  }

  async #build(
    tenant: string,
    key: string,
    about: Pick<Manifest, 'kind' | 'lock' | 'facts'> & { request: string | undefined },
    events: TaskEvents,
    signal: AbortSignal,
    fill: (directories: BuildDirectories, events: TaskEvents, signal: AbortSignal) => Promise<void>,
  ): Promise<Entry> {
    return await this.#inBuildDirectory(tenant, signal, async (directory, directories, watched) => {
      try {
        await fill(directories, events, watched);
        watched.throwIfAborted();
        const sizeBytes = await directorySize(directories.tree);
        const { request, ...shape } = about;
        const build = randomUUID().slice(0, 8);
        const requests = request === undefined ? [] : [request];
        const manifest = { format: FORMAT, build, ...shape, requests, sizeBytes };
        // The manifest says that all of it is there, so it must not reach the disk before the rest.
        await run('sync', ['-f', directories.tree]);
        await writeDurably(join(directory, MANIFEST), JSON.stringify(manifest));
        await rename(directory, join(this.#options.directory, tenant, key));
        return this.#add(tenant, key, manifest, Date.now());
      } catch (error) {
        await this.#remove(tenant, directory);
        throw error;
      }
    });
  }

  /** Work that writes to the disk: refused when that is full, stopped when it takes too much. */
  async #inBuildDirectory<Result>(
    tenant: string,
    signal: AbortSignal,
    work: (directory: string, directories: BuildDirectories, signal: AbortSignal) => Promise<Result>,
  ): Promise<Result> {
    await this.#makeRoom();
    const full = await this.whyFull();
    if (full !== undefined) throw new EnvironmentError(Code.ENVIRONMENT_FAILED, full);
    const stop = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    // From here on caches are left alone.
    this.#building++;
    try {
      const { directory, directories } = await this.#buildDirectory(tenant);
      const look = async () => {
        const fault = await this.#whyStop(directories).catch(() => undefined);
        if (fault !== undefined) stop.abort(new EnvironmentError(Code.ENVIRONMENT_FAILED, fault));
        else timer?.refresh();
      };
      timer = setTimeout(() => void look(), WATCH_MS).unref();
      return await work(directory, directories, AbortSignal.any([signal, stop.signal]));
    } catch (error) {
      throw stop.signal.aborted ? stop.signal.reason : error;
    } finally {
      clearTimeout(timer);
      timer = undefined;
      this.#building--;
    }
  }

  /** Why a build must not go on; undefined when it may. */
  async #whyStop({ tree, cache }: BuildDirectories): Promise<string | undefined> {
    const { maxBytes } = this.#options;
    const full = await this.whyFull();
    if (full !== undefined) return `the build was stopped: ${full}`;
    for (const directory of [tree, cache]) {
      if ((await directorySize(directory)) > maxBytes) {
        return `the build was stopped: it takes more than the ${mib(maxBytes)} MiB of all environments`;
      }
    }
    return undefined;
  }

  async #buildDirectory(tenant: string): Promise<{ directory: string; directories: BuildDirectories }> {
    if (!TENANT.test(tenant)) {
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

  async #recover(tenant: string, key: string): Promise<void> {
    const directory = join(this.#options.directory, tenant, key);
    try {
      const manifest = JSON.parse(await readFile(join(directory, MANIFEST), 'utf8')) as Manifest;
      if (manifest.format !== FORMAT || key.startsWith('.')) throw new Error('it is not complete');
      const usedMs = (await lstat(join(directory, MANIFEST))).mtimeMs;
      this.#add(tenant, key, manifest, usedMs);
    } catch (error) {
      this.#options.logger.info({ directory, reason: messageOf(error) }, 'removing what a build has left');
      await removeTree(directory);
    }
  }

  #add(tenant: string, key: string, manifest: Manifest, usedMs: number): Entry {
    const entry = { tenant, key, manifest, holders: 0, usedMs, touchedMs: usedMs, startKeys: new Set<string>() };
    this.#entries.set(idOf(tenant, key), entry);
    return entry;
  }

  #held(entry: Entry): HeldEnvironment {
    entry.holders++;
    this.#touch(entry);
    let released = false;
    return {
      key: `${entry.key}.${entry.manifest.build}`,
      tree: join(this.#options.directory, entry.tenant, entry.key, TREE),
      manifest: entry.manifest,
      runsAs: (startKey) => entry.startKeys.add(startKey),
      release: () => {
        if (released) return;
        released = true;
        entry.holders--;
        this.#touch(entry);
      },
    };
  }

  #touch(entry: Entry): void {
    entry.usedMs = Date.now();
    if (entry.usedMs - entry.touchedMs < TOUCH_MS) return;
    entry.touchedMs = entry.usedMs;
    const path = join(this.#options.directory, entry.tenant, entry.key, MANIFEST);
    const now = new Date(entry.usedMs);
    utimes(path, now, now).catch(() => undefined);
  }

  async #addRequest(entry: Entry, request: string | undefined): Promise<void> {
    const { manifest, tenant, key } = entry;
    if (request === undefined || manifest.requests.includes(request)) return;
    manifest.requests.push(request);
    await writeDurably(join(this.#options.directory, tenant, key, MANIFEST), JSON.stringify(manifest));
  }

  /** Evicts what was not used for longest, until the rest fits. What only saves downloads goes first. */
  async #makeRoom(keep?: Entry): Promise<void> {
    const { maxBytes, minFreeBytes, directory } = this.#options;
    if ((await freeBytes(directory)) < minFreeBytes) await this.#dropCaches();
    const oldest = [...this.#entries.values()].toSorted((a, b) => a.usedMs - b.usedMs);
    for (const entry of oldest) {
      if (this.sizeBytes <= maxBytes && (await freeBytes(directory)) >= minFreeBytes) return;
      const present = this.#entries.get(idOf(entry.tenant, entry.key)) === entry;
      if (!present || entry.holders > 0 || entry === keep) continue;
      this.#entries.delete(idOf(entry.tenant, entry.key));
      this.#options.logger.info({ key: entry.key, tenant: entry.tenant }, 'an environment makes room');
      for (const startKey of entry.startKeys) this.#options.retire(entry.tenant, startKey);
      await this.#remove(entry.tenant, join(directory, entry.tenant, entry.key));
    }
  }

  async #dropCaches(): Promise<void> {
    for (const tenant of await readdir(this.#options.directory)) {
      // A build that begins meanwhile may be using the rest.
      if (this.#building > 0) return;
      if (TENANT.test(tenant)) await this.#remove(tenant, join(this.#options.directory, tenant, CACHE));
    }
  }

  /** Out of sight at once, then from the disk. */
  async #remove(tenant: string, path: string): Promise<void> {
    const gone = join(this.#options.directory, tenant, `${GONE_PREFIX}${randomUUID()}`);
    try {
      // At once, so that nobody begins to use it in between.
      renameSync(path, gone);
      await removeTree(gone);
    } catch (error) {
      // Gone already, or a file beside the tenants.
      if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return;
      this.#options.logger.warn({ path, reason: messageOf(error) }, 'a directory could not be removed');
    }
  }
}

function idOf(tenant: string, key: string): string {
  return `${tenant} ${key}`;
}

/**
 * Removes what callers' code wrote and may be changing right now. `rm` goes by open directories and follows no link, also
 * none that takes a directory's place meanwhile; Node's own removal goes by paths.
 */
async function removeTree(path: string): Promise<void> {
  await run('rm', ['-rf', '--one-file-system', '--', path]);
}

async function freeBytes(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory);
  return bavail * bsize;
}

function mib(bytes: number): number {
  return Math.floor(bytes / (1024 * 1024));
}

/** The whole text or none of it, also after a crash. */
async function writeDurably(path: string, text: string): Promise<void> {
  const temporary = `${path}.${randomUUID()}`;
  const file = await open(temporary, 'wx', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
}
