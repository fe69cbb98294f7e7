import { chmod, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BuildRuns, buildBounds } from '../environment/build-runs.ts';
import { removeTree } from '../environment/disk.ts';
import type { PreparationEvents, PreparedEnvironment } from '../environment/environment.ts';
import { EnvironmentStore, type EnvironmentStoreOptions } from '../environment/environment-store.ts';
import type { Warm } from '../environment/package-provider.ts';
import { Launcher } from '../launcher/launcher.ts';
import { PrivateRuns } from '../launcher/private-runs.ts';
import { resolvePython } from '../launcher/python.ts';
import { startLauncher } from '../launcher/start-launcher.ts';
import { call, LauncherRecord } from './real-launcher.ts';
import { silentLogger } from './silent-logger.ts';

export const isRoot = process.getuid?.() === 0;
/** Where the tests' own uv is, and the host's tools. */
export const TOOLS_PATH = `/usr/local/bin:/usr/bin:/bin:${join(import.meta.dirname, '../../../.venv/bin')}`;

type StoreBounds = Pick<EnvironmentStoreOptions, 'maxBytes' | 'minFreeBytes'>;

/** A real launcher and a store: what providers of environments stand on. */
export class EnvironmentBuilds {
  readonly runs: PrivateRuns;
  readonly builds: BuildRuns;
  readonly store: EnvironmentStore;
  readonly #open: (name: string, bounds: StoreBounds) => Promise<EnvironmentStore>;
  readonly #others: EnvironmentStore[] = [];
  readonly #launcher: Launcher;
  readonly #record: LauncherRecord;
  readonly #directories: string[];
  #calls = 0;

  private constructor(
    runs: PrivateRuns,
    store: EnvironmentStore,
    open: (name: string, bounds: StoreBounds) => Promise<EnvironmentStore>,
    launcher: Launcher,
    record: LauncherRecord,
    directories: string[],
  ) {
    this.runs = runs;
    this.builds = new BuildRuns(runs, buildBounds(Number.POSITIVE_INFINITY));
    this.store = store;
    this.#open = open;
    this.#launcher = launcher;
    this.#record = record;
    this.#directories = directories;
  }

  static async start(): Promise<EnvironmentBuilds> {
    const dataDir = await mkdtemp(join(tmpdir(), 'builds-'));
    const stored = await mkdtemp(join(tmpdir(), 'builds-store-'));
    await chmod(stored, 0o711);
    const socketPath = join(dataDir, 'launcher.sock');
    const record = new LauncherRecord();
    const runs = new PrivateRuns(() => launcher);
    const launcher: Launcher = new Launcher({
      socketPath,
      start: async () => {
        const { path } = await resolvePython('python3');
        const options = { python: path, jobPython: undefined, dataDir, socketPath };
        await startLauncher({ ...options, allowUnsandboxed: false, spoolBytes: undefined });
      },
      events: runs.intercept(record.events),
      logger: silentLogger(),
    });
    await launcher.open();
    const open = async (name: string, bounds: StoreBounds) =>
      await EnvironmentStore.open({
        directory: join(stored, name),
        ...bounds,
        builder: isRoot ? { uid: 70621, gid: 70621 } : undefined,
        retire: (tenant, startKey) => launcher.retire(tenant, startKey),
        logger: silentLogger(),
      });
    const store = await open('environments', { maxBytes: 4 * 1024 ** 3, minFreeBytes: 64 * 1024 ** 2 });
    return new EnvironmentBuilds(runs, store, open, launcher, record, [dataDir, stored]);
  }

  /** Another store, closed and removed with the rest. */
  async openStore(bounds: StoreBounds): Promise<EnvironmentStore> {
    const store = await this.#open(`other-${this.#others.length}`, bounds);
    this.#others.push(store);
    return store;
  }

  async stop(): Promise<void> {
    for (const store of [this.store, ...this.#others]) await store.close();
    await this.#launcher.stop(0);
    this.#launcher.close();
    for (const directory of this.#directories) await removeTree(directory);
  }

  /** As an agent starts interpreters ahead. */
  readonly warm: Warm = (tenant, environment) => this.#launcher.warm(tenant, environment);

  /** How a call of `handler` in the environment ended: `succeeded {"x":1}`, `failed HANDLER_ERROR`. */
  async outcome({ start }: PreparedEnvironment, code: string): Promise<string> {
    const id = `call-${this.#calls++}`;
    const [message, ...body] = call(id, { code });
    if (start === undefined) throw new Error('the environment is that of inline');
    this.#launcher.startAttempt({ ...message, environment: start }, ...body);
    const line = await this.#record.until(`finished ${id}/1`);
    this.#launcher.acknowledge(id, 1, 0, 0, true);
    return line.replace(`finished ${id}/1 `, '');
  }
}

/** What a preparation tells, kept. Takes each lock as it was found. */
export function recordedEvents(): PreparationEvents & { text: string; locks: string[] } {
  const seen = {
    text: '',
    locks: [] as string[],
    onOutput: (data: Uint8Array) => {
      seen.text += Buffer.from(data).toString();
    },
    onProgress: () => undefined,
    onGpusTaken: () => {},
    decideLock: async (lock: string) => {
      seen.locks.push(lock);
      return lock;
    },
  };
  return seen;
}
