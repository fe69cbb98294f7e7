import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { call, LauncherRecord } from '../test-support/real-launcher.ts';
import { silentLogger } from '../test-support/silent-logger.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { Launcher } from './launcher.ts';
import { type PrivateCommand, PrivateRuns } from './private-runs.ts';
import { resolvePython } from './python.ts';
import { startLauncher } from './start-launcher.ts';

const never = new AbortController().signal;

/** A connection to the launcher of a directory with private runs. Closed after the test. */
async function connect(directory: string) {
  const record = new LauncherRecord();
  const socketPath = join(directory, 'launcher.sock');
  let idle = 0;
  const runs = new PrivateRuns(
    () => launcher,
    () => {
      idle++;
    },
  );
  const events = runs.intercept(record.events);
  /** What the launcher has in all, after each question. */
  const had: number[] = [];
  const launcher: Launcher = new Launcher({
    socketPath,
    start: async () => {
      const { path } = await resolvePython('python3');
      const options = { python: path, jobPython: undefined, dataDir: directory, socketPath };
      await startLauncher({ ...options, allowUnsandboxed: false, spoolBytes: undefined });
    },
    events: {
      ...events,
      onWelcome: (welcome) => {
        had.push(welcome.attempts.length);
        events.onWelcome(welcome);
      },
    },
    logger: silentLogger(),
  });
  onTestFinished(() => launcher.close());
  await launcher.open();
  return { launcher, runs, record, had, idle: () => idle };
}

function command(script: string, onOutput: PrivateCommand['onOutput'] = () => undefined): PrivateCommand {
  const [{ limits }] = call('', { argv: [] });
  return {
    tenant: 'acme',
    argv: ['sh', '-c', script],
    input: Buffer.from('given'),
    variables: {},
    environment: { key: `build ${randomUUID()}` },
    network: undefined,
    limits,
    timeoutMs: 60_000,
    onOutput,
  };
}

describe('a private run', () => {
  test('tells what it wrote and how it ended, and nothing of it to others', async () => {
    const { launcher, runs, record } = await connect(tempDir());
    onTestFinished(() => launcher.stop(0));
    const told: string[] = [];
    const end = await runs.run(
      command('cat; echo oops >&2; exit 3', (stream, data) => told.push(`${stream} ${data}`)),
      never,
    );
    expect(end).toMatchObject({ outcome: 'failed', exit_code: 3 });
    expect(told.toSorted()).toEqual(['stderr oops\n', 'stdout given']);
    expect(record.lines).toEqual(['welcome ']);
  });

  test('that was the last one leaves nothing to wait for', async () => {
    const { launcher, runs, idle } = await connect(tempDir());
    onTestFinished(() => launcher.stop(0));
    const first = runs.run(command('read line; true'), never);
    await runs.run(command('exit 1'), never);
    await first;
    expect(runs.active).toBe(0);
    expect(idle()).toBeGreaterThan(0);
  });

  test('that begins while the launcher is asked for what it has is not taken for lost', async () => {
    const { launcher, runs } = await connect(tempDir());
    onTestFinished(() => launcher.stop(0));
    launcher.replay();
    expect((await runs.run(command('true'), never)).outcome).toBe('succeeded');
  });

  test('is stopped when it is aborted', async () => {
    const { launcher, runs } = await connect(tempDir());
    onTestFinished(() => launcher.stop(0));
    const stop = new AbortController();
    const run = runs.run(
      command('echo up; sleep 3600', () => stop.abort(new Error('enough'))),
      stop.signal,
    );
    await expect(run).rejects.toThrow('enough');
  });

  test('of a former agent is stopped and forgotten', async () => {
    const directory = tempDir();
    const former = await connect(directory);
    const up = Promise.withResolvers<void>();
    former.runs
      .run(
        command('echo up; sleep 3600', () => up.resolve()),
        never,
      )
      .catch(() => undefined);
    await up.promise;
    former.launcher.close();
    const { launcher, record, had } = await connect(directory);
    onTestFinished(() => launcher.stop(0));
    expect(had).toEqual([1]);
    while (had.at(-1) !== 0) {
      launcher.replay();
      await record.until('welcome');
    }
    expect(record.lines).toEqual([]);
  });

  test('fails when the launcher is gone', async () => {
    const { launcher, runs } = await connect(tempDir());
    await launcher.stop(0);
    await expect(runs.run(command('true'), never)).rejects.toThrow("the agent's launcher is not running");
  });
});
