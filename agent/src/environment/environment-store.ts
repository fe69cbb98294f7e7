import { createHash, randomUUID } from 'node:crypto';
import { renameSync } from 'node:fs';
import { lstat, mkdir, readdir, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { messageOf } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { SharedTasks, type TaskEvents } from '../tasks/shared-tasks.ts';
import { untilAborted } from '../tasks/until-aborted.ts';
import {
  type BuildDirectories,
  BuildSpace,
  type BuildSpaceOptions,
  CACHE,
  isTenant,
  type StartAhead,
  TREE,
} from './build-space.ts';
import { discard, mib, spaceOf, syncFileSystem } from './disk.ts';
import { EnvironmentError } from './environment.ts';
import { BOOT, MANIFEST, type Manifest, readManifest, writeManifest } from './manifest.ts';

/** What is used often need not be written down each time: it only orders the evictions after a restart. */
const TOUCH_MS = 60_000;
/** What is done while an environment is in use leaves the processors to its first call for so long. */
const SETTLE_DELAY_MS = 500;
/** Length of the names of directories that former versions have built. */
const SHORT_BUILD = 8;
/** How often it is tried to remove what a torn build has left: a minute's time for that build to end. */
const REMOVAL_TRIES = 120;

/** A directory that interpreters can be started in. */
export interface EnvironmentPlace {
  /**
   * Names this very directory: what runs in an environment that was evicted must not be taken for one in the environment
   * that was built again in its place.
   */
  readonly key: string;
  /** What is mounted at /environment. */
  readonly tree: string;
  /** A warm interpreter may be started in it under this key; it is retired when the directory goes. */
  runsAs(startKey: string): void;
}

/** An environment in the store, held: it is not evicted before `release`. */
export interface HeldEnvironment extends EnvironmentPlace {
  readonly manifest: Manifest;
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
  /** The last write of its manifest. */
  written: Promise<void>;
}

export interface EnvironmentStoreOptions extends BuildSpaceOptions {
  /** Ends the warm interpreter in a directory that goes, whose files it would keep on the disk. */
  retire: (tenant: string, startKey: string) => void;
}

/** How a build ended, as whoever watches the store is told. */
export type BuildListener = (result: 'built' | 'failed', seconds: number) => void;

/** What a build has made. */
export interface Built extends Pick<Manifest, 'kind' | 'lock' | 'facts'> {
  /** See `EnvironmentStore.keyOf`. */
  key: string;
  /**
   * What is done to the tree while it is in use already, and may be left undone: it adds what is found by name, and changes
   * nothing. Absent: nothing.
   */
  finish?: Finish;
  /** Starts what the tenant's next build begins with, most likely. Absent: nothing. */
  startNext?: StartAhead;
}

export type Finish = (directories: BuildDirectories, signal: AbortSignal) => Promise<void>;

/** @param place where the tree is while it is filled; what is started in it may go on when the environment is there */
type Fill<Result> = (
  directories: BuildDirectories,
  events: TaskEvents,
  signal: AbortSignal,
  place: EnvironmentPlace,
) => Promise<Result>;

/**
 * Prepared environments on disk: `TENANT/KEY/tree`, beside it a manifest that is written last. The key tells everything
 * that shapes an environment, so one that is there never changes, but for what `Built.finish` adds. What a build leaves when it is torn is removed at the next
 * start. What lies in a tree was written by code of callers: it is counted and removed without following links.
 */
export class EnvironmentStore {
  readonly #options: EnvironmentStoreOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #builds = new SharedTasks<Entry>();
  readonly #space: BuildSpace;
  /** What goes on for environments that are in use already. */
  readonly #settling = new Set<Promise<void>>();
  /** Environments that this process has begun to finish: what fails once is not tried for each call. */
  readonly #begun = new WeakSet<Manifest>();
  readonly #closing = new AbortController();
  #evictions = 0;
  #onBuilt: BuildListener | undefined;

  private constructor(options: EnvironmentStoreOptions) {
    this.#options = options;
    this.#space = new BuildSpace(options);
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
      if (!isTenant(tenant) || !(await lstat(directory)).isDirectory()) continue;
      for (const name of await readdir(directory)) if (!name.startsWith(CACHE)) await store.#recover(tenant, name);
      store.#inBackground('downloads could not be counted', store.#space.countCache(tenant));
    }
    return store;
  }

  /** What goes on for environments that are in use already has come to its end. */
  async settled(): Promise<void> {
    while (this.#settling.size > 0) await Promise.all(this.#settling);
  }

  /** Leaves the directory to another store: nothing is written any more. Nothing can be built from now on. */
  async close(): Promise<void> {
    this.#closing.abort(new Error('the store is closed'));
    await this.settled();
    await this.#space.dropSpare();
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

  /** Environments that are there, and how many made room for others since the start. */
  get counts(): { environments: number; evictions: number } {
    return { environments: this.#entries.size, evictions: this.#evictions };
  }

  /** @param listener told of the end of each build from now on */
  onBuilt(listener: BuildListener): void {
    this.#onBuilt = listener;
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

  /**
   * Why nothing can be built here, whatever is evicted; undefined when something can. At once, so that it can be asked for
   * each call; what builds keep of downloads is then dropped in the background, and may make room for the next.
   */
  whyNoRoom(): string | undefined {
    const { directory, maxBytes, minFreeBytes } = this.#options;
    const { freeBytes } = spaceOf(directory);
    const heldBytes = this.#heldBytes();
    const dropCaches = () => this.#inBackground('downloads could not be dropped', this.#dropCaches());
    if (freeBytes + this.sizeBytes - heldBytes < minFreeBytes) {
      dropCaches();
      return `no room for environments: ${mib(freeBytes)} MiB free of ${mib(minFreeBytes)} MiB needed`;
    }
    const full = this.#space.whyFull();
    const canEvict = [...this.#entries.values()].some(({ holders }) => holders === 0);
    if (full !== undefined && !canEvict) {
      dropCaches();
      return `no room for environments: ${full}`;
    }
    if (heldBytes < maxBytes) return undefined;
    return `no room for environments: those in use take ${mib(heldBytes)} MiB of ${mib(maxBytes)} MiB`;
  }

  /**
   * Builds an environment, or waits for the build that goes on.
   * @param request of a caller, when it has led to this environment; see `holdByRequest`
   * @param fill fills the tree; the environment is there when it resolves, and nothing of it when it rejects
   * @throws EnvironmentError when the disk has no room; what `fill` throws; the signal's reason when it is aborted
   */
  async build(
    tenant: string,
    built: Built,
    request: string | undefined,
    events: TaskEvents,
    signal: AbortSignal,
    fill: Fill<void>,
  ): Promise<HeldEnvironment> {
    const id = idOf(tenant, built.key);
    while (true) {
      const known = this.#entries.get(id);
      if (known !== undefined) {
        const held = this.#held(known);
        await this.#addRequest(known, request);
        return held;
      }
      const entry = await this.#builds.run(id, events, signal, async (told, stop) => {
        // The one before may have come to its end although nobody waited for it any more.
        const before = this.#entries.get(id);
        if (before !== undefined) return before;
        return await this.#build(tenant, request, told, stop, async (...given) => {
          await fill(...given);
          return built;
        });
      });
      // It may have been evicted before this turn came.
      if (this.#isPresent(entry)) return this.#held(entry);
    }
  }

  /**
   * Builds an environment of which nobody can say before what it is, or waits for the build that goes on for the same
   * request. What it comes to may be there already; then that is held, and what was built is dropped.
   * @param request of a caller; the environment is not found by it before a `build` says so
   * @throws as `build`
   */
  async buildUnnamed(
    tenant: string,
    request: string,
    events: TaskEvents,
    signal: AbortSignal,
    fill: Fill<Built>,
  ): Promise<HeldEnvironment> {
    while (true) {
      const entry = await this.#builds.run(
        `${tenant} unnamed ${request}`,
        events,
        signal,
        async (told, stop) => await this.#build(tenant, undefined, told, stop, fill),
      );
      if (this.#isPresent(entry)) return this.#held(entry);
    }
  }

  /** Ends what waits for the next build; a later build may leave something to wait again. */
  async dropSpare(): Promise<void> {
    await this.#space.dropSpare();
  }

  /** Does what is left undone of an environment's `Built.finish`, in the background; nothing where that was begun already. */
  finishLater(held: HeldEnvironment, finish: Finish): void {
    for (const entry of this.#entries.values()) {
      if (entry.manifest !== held.manifest || !entry.manifest.unfinished || this.#begun.has(entry.manifest)) continue;
      this.#settle(entry, finish);
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
    await this.#makeRoom();
    try {
      return await this.#space.run(tenant, signal, async (directory, directories, watched) => {
        try {
          return await work(directories, watched);
        } finally {
          await discard(directory, this.#options.logger);
        }
      });
    } finally {
      this.#inBackground('downloads could not be counted', this.#countCache(tenant));
    }
  }

  async #build(
    tenant: string,
    request: string | undefined,
    events: TaskEvents,
    signal: AbortSignal,
    fill: Fill<Built>,
  ): Promise<Entry> {
    await this.#makeRoom();
    const startMs = performance.now();
    const build = randomUUID();
    const startKeys = new Set<string>();
    const runsAs = (startKey: string) => startKeys.add(startKey);
    const building = this.#space.run(tenant, signal, async (directory, directories, watched) => {
      const drop = async () => {
        for (const startKey of startKeys) this.#options.retire(tenant, startKey);
        await discard(directory, this.#options.logger);
      };
      try {
        const place = { key: build, tree: directories.tree, runsAs };
        const { key, finish, startNext, ...shape } = await fill(directories, events, watched, place);
        watched.throwIfAborted();
        const sizeBytes = await this.#space.measure(directories.tree);
        const requests = request === undefined ? [] : [request];
        const manifest: Manifest = {
          ...{ build, ...shape, requests, sizeBytes, boot: BOOT },
          ...(finish === undefined ? {} : { unfinished: true }),
        };
        await writeManifest(directory, manifest);
        await this.#makeRoom(sizeBytes);
        // From here on at once: of two builds that come to the same, the first stays.
        const there = this.#entries.get(idOf(tenant, key));
        if (there !== undefined) {
          await drop();
          return there;
        }
        this.#checkBudget(sizeBytes);
        renameSync(directory, join(this.#options.directory, tenant, key));
        const added = this.#add(tenant, key, manifest, Date.now(), startKeys);
        this.#settle(added, finish, startNext);
        return added;
      } catch (error) {
        await drop();
        throw error;
      }
    });
    let result: 'built' | 'failed' = 'failed';
    try {
      const entry = await building;
      result = 'built';
      return entry;
    } finally {
      this.#onBuilt?.(result, (performance.now() - startMs) / 1000);
      this.#inBackground('downloads could not be counted', this.#countCache(tenant));
    }
  }

  /** @throws EnvironmentError when an environment does not fit beside those in use, as all others were evicted */
  #checkBudget(sizeBytes: number): void {
    const { maxBytes } = this.#options;
    if (this.sizeBytes + sizeBytes <= maxBytes) return;
    const others = this.sizeBytes === 0 ? '' : `, and those in use take ${mib(this.sizeBytes)} MiB`;
    const message = `the environment takes ${mib(sizeBytes)} MiB of the ${mib(maxBytes)} MiB of all environments${others}`;
    throw new EnvironmentError(Code.ENVIRONMENT_FAILED, message);
  }

  async #countCache(tenant: string): Promise<void> {
    await this.#space.countCache(tenant);
    await this.#makeRoom();
  }

  /** What nobody waits for but `close`. */
  #inBackground(failure: string, work: Promise<void>): void {
    const settled = work.catch((error) => {
      if (!this.#closing.signal.aborted) this.#options.logger.warn({ reason: messageOf(error) }, failure);
    });
    this.#settling.add(settled);
    void settled.then(() => this.#settling.delete(settled));
  }

  #heldBytes(): number {
    let bytes = 0;
    for (const { manifest, holders } of this.#entries.values()) if (holders > 0) bytes += manifest.sizeBytes;
    return bytes;
  }

  /**
   * Finishes an environment and brings it to the disk, while it is in use: nobody waits for that. Until then its manifest
   * holds for this start of the system only.
   */
  #settle(entry: Entry, finish?: Finish, startNext?: StartAhead): void {
    if (finish !== undefined) this.#begun.add(entry.manifest);
    const settled = this.#settled(entry, finish, startNext).catch((error) => {
      if (this.#isPresent(entry)) throw error;
    });
    this.#inBackground(`environment ${entry.key} of ${entry.tenant} could not be finished`, settled);
  }

  async #settled(entry: Entry, finish?: Finish, startNext?: StartAhead): Promise<void> {
    const { tenant, manifest } = entry;
    const tree = this.#treeOf(entry);
    const { signal } = this.#closing;
    let failure: unknown;
    if (finish !== undefined) {
      const held = this.#held(entry);
      try {
        await setTimeout(SETTLE_DELAY_MS, undefined, { signal, ref: false });
        await untilAborted(this.#space.again(tenant, tree, signal, finish), signal);
        delete manifest.unfinished;
      } catch (error) {
        failure = error;
      } finally {
        manifest.sizeBytes = await this.#space.measure(tree);
        held.release();
        await this.#makeRoom();
      }
    }
    // The manifest says that all of it is there, so it must not reach the disk before the rest. What was not finished can be used.
    signal.throwIfAborted();
    await syncFileSystem(tree);
    signal.throwIfAborted();
    delete manifest.boot;
    await this.#write(entry);
    if (failure !== undefined) throw failure;
    if (startNext !== undefined) await this.#space.keepSpare(tenant, startNext);
  }

  async #recover(tenant: string, key: string): Promise<void> {
    const directory = join(this.#options.directory, tenant, key);
    try {
      if (key.startsWith('.')) throw new Error('it is not complete');
      const manifest = await readManifest(directory);
      // Former versions named it by eight digits, which are not enough by themselves.
      if (manifest.build.length <= SHORT_BUILD) manifest.build = `${key}.${manifest.build}`;
      const usedMs = (await lstat(join(directory, MANIFEST))).mtimeMs;
      const entry = this.#add(tenant, key, manifest, usedMs);
      if (manifest.boot !== undefined) this.#settle(entry);
    } catch (error) {
      const { logger } = this.#options;
      logger.info({ directory, reason: messageOf(error) }, 'removing what a build has left');
      // A build of a former agent writes to it until the launcher has ended it.
      const removed = discard(directory, logger, { tries: REMOVAL_TRIES, signal: this.#closing.signal });
      this.#inBackground('what a build has left could not be removed', removed);
    }
  }

  #add(tenant: string, key: string, manifest: Manifest, usedMs: number, startKeys = new Set<string>()): Entry {
    const entry = {
      ...{ tenant, key, manifest, holders: 0, usedMs, touchedMs: usedMs },
      ...{ startKeys, written: Promise.resolve() },
    };
    this.#entries.set(idOf(tenant, key), entry);
    return entry;
  }

  #held(entry: Entry): HeldEnvironment {
    entry.holders++;
    this.#touch(entry);
    let released = false;
    return {
      key: entry.manifest.build,
      tree: this.#treeOf(entry),
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
    const { manifest } = entry;
    if (request === undefined || manifest.requests.includes(request)) return;
    manifest.requests.push(request);
    await this.#write(entry);
  }

  /** One after the other: the last one has everything. */
  async #write(entry: Entry): Promise<void> {
    const { tenant, key, manifest } = entry;
    const write = async () => {
      if (this.#isPresent(entry)) await writeManifest(join(this.#options.directory, tenant, key), manifest);
    };
    entry.written = entry.written.then(write, write);
    await entry.written;
  }

  #isPresent(entry: Entry): boolean {
    return this.#entries.get(idOf(entry.tenant, entry.key)) === entry;
  }

  #treeOf({ tenant, key }: Entry): string {
    return join(this.#options.directory, tenant, key, TREE);
  }

  /** Evicts what was not used for longest, until the rest and so many bytes fit. What only saves downloads goes first. */
  async #makeRoom(bytes = 0): Promise<void> {
    const { maxBytes, directory } = this.#options;
    const fits = () => this.sizeBytes + bytes <= maxBytes && this.#space.whyFull() === undefined;
    if (!fits() || this.sizeBytes + bytes + this.#space.cacheBytes > maxBytes) await this.#dropCaches();
    const oldest = [...this.#entries.values()].toSorted((a, b) => a.usedMs - b.usedMs);
    for (const entry of oldest) {
      if (fits()) return;
      if (!this.#isPresent(entry) || entry.holders > 0) continue;
      this.#entries.delete(idOf(entry.tenant, entry.key));
      this.#evictions++;
      this.#options.logger.info({ key: entry.key, tenant: entry.tenant }, 'an environment makes room');
      for (const startKey of entry.startKeys) this.#options.retire(entry.tenant, startKey);
      await discard(join(directory, entry.tenant, entry.key), this.#options.logger);
    }
  }

  async #dropCaches(): Promise<void> {
    for (const tenant of await readdir(this.#options.directory)) {
      if (isTenant(tenant)) await this.#space.dropCache(tenant);
    }
  }
}

function idOf(tenant: string, key: string): string {
  return `${tenant} ${key}`;
}
