import { chmod, mkdir, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { HarrierError, type Logger, lockDirectory, messageOf } from '@harrier/shared';
import type { PrivateRuns } from '../launcher/private-runs.ts';
import { type BuildBounds, BuildRuns } from './build-runs.ts';
import { createCondaProvider } from './conda/conda-provider.ts';
import type { EnvironmentProvider } from './environment.ts';
import { type BuildListener, EnvironmentStore } from './environment-store.ts';
import { Interpreters } from './interpreters.ts';
import { claimStore, removeOrphanedStores, storeOf } from './orphaned-stores.ts';
import type { Warm } from './package-provider.ts';
import { findTool, isOpenToAll, reachableTool } from './tools.ts';
import { pipInstaller, uvInstaller } from './venv/installer.ts';
import { createVenvProvider } from './venv/venv-provider.ts';

/** The launcher's own, when it is root; see `sandbox.py`. */
const SANDBOX_USER = { uid: 70621, gid: 70621 };
/** Where environments go when the data directory is closed to the sandbox's user, as it is below /root. */
const SYSTEM_DIRECTORY = '/var/lib/harrier';
/** Of the disk, for all environments together. */
const DISK_SHARE = 0.2;

/** What an operator may set of environments that are built; docs/environments.md explains it. */
export interface EnvironmentSettings {
  /** Where they are kept; undefined: in the data directory where the sandbox's user can reach it. */
  directory: string | undefined;
  /** Bytes of all of them; undefined: a part of the disk. */
  maxBytes: number | undefined;
  /** Bytes of the disk that builds leave free. */
  minFreeBytes: number;
  /** Package indexes that a request may name beside the agent's own. */
  allowedIndexes: readonly string[];
  /** Whether a request may name several indexes at once. */
  allowExtraIndex: boolean;
  /** `HOST:PORT` where the indexes keep their files, if it is elsewhere. */
  indexHosts: readonly string[];
  /** Conda channels where a request names none. */
  channels: readonly string[];
  /** Conda channels that a request may name beside those. */
  allowedChannels: readonly string[];
}

export interface PackageProvidersOptions {
  settings: EnvironmentSettings;
  indexUrl: string;
  dataDir: string;
  searchPath: string;
  runs: PrivateRuns;
  bounds: BuildBounds;
  /** Starts interpreters ahead of the first call; absent: nothing does. */
  warm?: Warm | undefined;
  /** Ends the warm interpreter of an environment that is evicted. */
  retire: (tenant: string, startKey: string) => void;
  /** Interpreter of `inline`, once the launcher has told it. */
  python: () => string | undefined;
  /** Why nothing can be built or run in a sandbox now. */
  unavailable: () => string | undefined;
  logger: Logger;
}

export interface PackageProviders {
  providers: EnvironmentProvider[];
  /** Environments that are kept, their bytes, what they may take, and how many made room for others. */
  store(): { environments: number; bytes: number; maxBytes: number; evictions: number };
  /** Steps of builds that run, and that wait for their turn. */
  builds(): { running: number; waiting: number };
  /** @param listener told of the end of each build from now on */
  onBuilt(listener: BuildListener): void;
  /** Ends the sandbox that waits for the next build. The launcher must be there still. */
  dropSpare(): Promise<void>;
  /** Leaves the store to another agent. */
  close(): Promise<void>;
}

/**
 * The environments whose packages are installed on this host: venv and conda, over one store.
 * @throws HarrierError failed_precondition, when the sandbox cannot reach the store, or another agent has it: that would take
 * builds that go on for torn ones
 */
export async function createPackageProviders(options: PackageProvidersOptions): Promise<PackageProviders> {
  const { settings, searchPath, dataDir, indexUrl, logger } = options;
  const isRoot = process.getuid?.() === 0;
  const directory = settings.directory ?? (await defaultDirectory(dataDir, isRoot));
  await mkdir(directory, { recursive: true, mode: 0o711 });
  if (settings.directory === undefined) await chmod(directory, 0o711);
  if (isRoot && !(await isOpenToAll(directory))) {
    const message = `HARRIER_AGENT_ENVIRONMENTS_DIR: the user of the sandboxes (${SANDBOX_USER.uid}) cannot enter ${directory}; it and what is above it must be executable by everybody`;
    throw new HarrierError('failed_precondition', message);
  }
  const lock = lockDirectory(directory, { holder: 'agent', mode: 0o711 });
  if (directory === storeOf(dataDir, SYSTEM_DIRECTORY)) {
    await claimStore(directory, dataDir);
    removeOrphanedStores(SYSTEM_DIRECTORY, logger).catch((error) =>
      logger.warn({ reason: messageOf(error) }, 'environments of agents that are gone could not be removed'),
    );
  }
  const maxBytes = settings.maxBytes ?? (await shareOf(directory));
  const store = await EnvironmentStore.open({
    directory,
    maxBytes,
    minFreeBytes: settings.minFreeBytes,
    builder: isRoot ? SANDBOX_USER : undefined,
    retire: options.retire,
    logger,
  });
  const found = await findTool('uv', `${join(dataDir, 'tools')}:${searchPath}`);
  const uv = found && (await reachableTool(found, join(directory, '.tools'), isRoot));
  const indexes = {
    indexUrl,
    allowed: settings.allowedIndexes,
    allowExtra: settings.allowExtraIndex,
    fileHosts: settings.indexHosts,
  };
  const runs = new BuildRuns(options.runs, options.bounds);
  const common = { store, runs, indexes, unavailable: options.unavailable };
  const venv = createVenvProvider({
    ...common,
    interpreters: new Interpreters(searchPath, options.python, isRoot),
    installer: uv === undefined ? pipInstaller() : uvInstaller(uv),
    warm: options.warm,
  });
  const channels = { channels: settings.channels, allowed: settings.allowedChannels };
  logger.info({ directory, installer: uv === undefined ? 'pip' : 'uv' }, 'environments are kept');
  const providers = [venv, createCondaProvider({ ...common, venv, uv, channels })];
  const close = async () => {
    await store.close();
    lock.release();
  };
  return {
    providers,
    store: () => ({ ...store.counts, bytes: store.sizeBytes, maxBytes }),
    builds: () => runs.counts,
    onBuilt: (listener) => store.onBuilt(listener),
    dropSpare: () => store.dropSpare(),
    close,
  };
}

async function defaultDirectory(dataDir: string, isRoot: boolean): Promise<string> {
  const own = join(dataDir, 'environments');
  if (!isRoot) return own;
  await mkdir(own, { recursive: true, mode: 0o711 });
  if (await isOpenToAll(own)) return own;
  return storeOf(dataDir, SYSTEM_DIRECTORY);
}

async function shareOf(directory: string): Promise<number> {
  const { blocks, bsize } = await statfs(dirname(directory));
  return Math.floor(blocks * bsize * DISK_SHARE);
}
