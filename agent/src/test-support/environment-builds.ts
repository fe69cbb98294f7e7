import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { PreparationEvents, PreparedEnvironment } from '../environment/environment.ts';
import { EnvironmentStore } from '../environment/environment-store.ts';
import { Launcher } from '../launcher/launcher.ts';
import { PrivateRuns } from '../launcher/private-runs.ts';
import { resolvePython } from '../launcher/python.ts';
import { startLauncher } from '../launcher/start-launcher.ts';
import { call, LauncherRecord } from './real-launcher.ts';
import { silentLogger } from './silent-logger.ts';

export const isRoot = process.getuid?.() === 0;
/** Where the tests' own uv is, and the host's tools. */
export const TOOLS_PATH = `/usr/local/bin:/usr/bin:/bin:${join(import.meta.dirname, '../../../.venv/bin')}`;

/** A real launcher and a store: what providers of environments stand on. */
export class EnvironmentBuilds {
  readonly runs: PrivateRuns;
  readonly store: EnvironmentStore;
  readonly #launcher: Launcher;
  readonly #record: LauncherRecord;
  readonly #directories: string[];
  #calls = 0;

  private constructor(
    runs: PrivateRuns,
    store: EnvironmentStore,
    launcher: Launcher,
    record: LauncherRecord,
    directories: string[],
  ) {
    this.runs = runs;
    this.store = store;
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
    const store = await EnvironmentStore.open({
      directory: join(stored, 'environments'),
      maxBytes: 4 * 1024 ** 3,
      minFreeBytes: 64 * 1024 ** 2,
      builder: isRoot ? { uid: 70621, gid: 70621 } : undefined,
      retire: (tenant, startKey) => launcher.retire(tenant, startKey),
      logger: silentLogger(),
    });
    return new EnvironmentBuilds(runs, store, launcher, record, [dataDir, stored]);
  }

  async stop(): Promise<void> {
    await this.store.close();
    await this.#launcher.stop(0);
    this.#launcher.close();
    for (const directory of this.#directories) await rm(directory, { recursive: true });
  }

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
    decideLock: async (lock: string) => {
      seen.locks.push(lock);
      return lock;
    },
  };
  return seen;
}
