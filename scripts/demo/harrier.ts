import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
/** Downloads are over by then; the slowest machines take a minute for the first database. */
const START_DEADLINE_MS = 180_000;
const STOP_DEADLINE_MS = 60_000;

/** A control plane and an agent, with all they write in a temporary directory. */
export interface RunningHarrier {
  url: string;
  key: string;
  sandboxed: boolean;
  /** Stops everything and removes the directory. */
  stop(): Promise<void>;
}

/** Runs `harrier up` on free ports. @param flags more flags for it */
export async function startHarrier(flags: readonly string[]): Promise<RunningHarrier> {
  const directory = await mkdtemp(join(tmpdir(), 'harrier-demo-'));
  // As root, PostgreSQL runs as a user of its own, which has to get in; what is secret has a narrower mode itself.
  await chmod(directory, 0o755);
  const up = spawn(
    process.execPath,
    [
      // It ends when the demo is gone, however that went.
      ...['--import', join(ROOT, 'cli/src/up/end-with-parent.ts')],
      join(ROOT, 'cli/bin/harrier.mjs'),
      ...['up', '--json', '--data-dir', directory, '--config', join(ROOT, 'examples/modules.yaml')],
      ...['--listen', '127.0.0.1:0', '--metrics-listen', '127.0.0.1:0', '--agent-metrics-listen', '127.0.0.1:0'],
      ...flags,
    ],
    // Out of reach of the terminal's Ctrl-C: the demo passes it on, once.
    { stdio: ['pipe', 'pipe', 'inherit'], detached: true },
  );
  const ended = once(up, 'exit') as Promise<[number | null]>;
  const stop = async (): Promise<void> => {
    up.kill('SIGTERM');
    const killer = setTimeout(() => up.kill('SIGKILL'), STOP_DEADLINE_MS);
    const [code] = await ended;
    clearTimeout(killer);
    await rm(directory, { recursive: true, force: true });
    if (code !== 0) process.exitCode = 1;
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void stop().finally(() => process.exit(1)));
  }
  try {
    const line = Promise.race([
      once(createInterface({ input: up.stdout }), 'line', { signal: AbortSignal.timeout(START_DEADLINE_MS) }),
      ended.then(([code]) => Promise.reject(new Error(`harrier up ended with code ${code}; the reason is above`))),
    ]);
    const ready = JSON.parse(String((await line)[0])) as { url: string; keyFile: string; sandboxed: boolean };
    const key = (await readFile(ready.keyFile, 'utf8')).trim();
    return { url: ready.url, key, sandboxed: ready.sandboxed, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
