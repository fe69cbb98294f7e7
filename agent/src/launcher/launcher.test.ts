import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { call, connectLauncher, stopAfterTest } from '../test-support/real-launcher.ts';
import { silentLogger } from '../test-support/silent-logger.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { Launcher } from './launcher.ts';
import { startLauncher } from './start-launcher.ts';

const HELLO = 'def handler(input):\n    import os; os.write(1, b"hello\\n")\n    return {"x": 1}\n';
const FOREVER = 'import time\ndef handler(input):\n    import os; os.write(1, b"up\\n")\n    time.sleep(3600)\n';

// Each of them starts a real launcher, which takes a second or two on a busy machine.
describe('the launcher', () => {
  test('is started when none answers, and runs code and commands', async () => {
    const { launcher, record } = connectLauncher(tempDir());
    await launcher.open();
    stopAfterTest(launcher);
    expect(record.welcomes[0]).toMatchObject({ isolation: 'sandbox', attempts: [] });
    launcher.startAttempt(...call('e1', { code: HELLO }));
    expect(await record.until('started')).toBe('started e1/1');
    expect(await record.until('stdout')).toBe('stdout e1/1 0 hello\n');
    expect(await record.until('finished')).toBe('finished e1/1 succeeded {"x":1}');
    launcher.startAttempt(...call('e2', { argv: ['sh', '-c', 'exit 3'] }));
    expect(await record.until('finished')).toBe('finished e2/1 failed EXIT_NONZERO exit 3');
  });

  test('repeats what is not acknowledged, and forgets what is', async () => {
    const { launcher, record } = connectLauncher(tempDir());
    await launcher.open();
    stopAfterTest(launcher);
    launcher.startAttempt(...call('e1', { code: HELLO }));
    await record.until('finished');
    launcher.acknowledge('e1', 1, 3, 0, false);
    launcher.replay();
    expect(await record.until('welcome e1')).toBe('welcome e1/1 finished');
    expect(await record.until('stdout')).toBe('stdout e1/1 3 lo\n');
    await record.until('finished');
    launcher.acknowledge('e1', 1, 0, 0, true);
    launcher.replay();
    expect(await record.until('welcome')).toBe('welcome ');
  });

  test('answers the last of several replays only', async () => {
    const { launcher, record } = connectLauncher(tempDir());
    await launcher.open();
    stopAfterTest(launcher);
    await record.until('welcome');
    launcher.replay();
    launcher.replay();
    launcher.replay();
    launcher.startAttempt(...call('e1', { code: HELLO }));
    await record.until('finished');
    expect(record.welcomes).toHaveLength(2);
  });

  test('cancels', async () => {
    const { launcher, record } = connectLauncher(tempDir());
    await launcher.open();
    stopAfterTest(launcher);
    launcher.startAttempt(...call('e1', { code: FOREVER }));
    await record.until('stdout');
    launcher.cancelAttempt('e1', 1, 'cancel', 0);
    expect(await record.until('finished')).toBe('finished e1/1 cancelled CANCELLED');
  });

  test('outlives the agent, which finds its attempts again', async () => {
    const directory = tempDir();
    const before = connectLauncher(directory);
    await before.launcher.open();
    const about = { task_class: 'cpu_long', environment: 'inline', trace_parent: '' };
    const [message, ...body] = call('e1', { code: FOREVER });
    before.launcher.startAttempt({ ...message, about }, ...body);
    await before.record.until('stdout');
    before.launcher.close();
    const after = connectLauncher(directory);
    await after.launcher.open();
    stopAfterTest(after.launcher);
    expect(await after.record.until('welcome')).toBe('welcome e1/1 running');
    expect(after.record.welcomes[0]?.pid).toBe(before.record.welcomes[0]?.pid);
    expect(after.record.welcomes[0]?.attempts).toMatchObject([{ about: { tenant: expect.any(String), ...about } }]);
    expect(await after.record.until('stdout')).toBe('stdout e1/1 0 up\n');
  });

  test('that was killed is started again, and tells what was lost', async () => {
    const { launcher, record } = connectLauncher(tempDir());
    await launcher.open();
    stopAfterTest(launcher);
    launcher.startAttempt(...call('e1', { code: FOREVER }));
    await record.until('stdout');
    process.kill(record.welcomes[0]?.pid ?? 0, 'SIGKILL');
    await record.until('lost');
    expect(launcher.startAttempt(...call('e2', { code: HELLO }))).toBe(false);
    expect(await record.until('welcome')).toBe('welcome e1/1 finished');
    expect(await record.until('finished')).toBe('finished e1/1 failed AGENT_LOST');
  });

  test('ends when it is told to', async () => {
    const { launcher, record } = connectLauncher(tempDir());
    await launcher.open();
    launcher.startAttempt(...call('e1', { code: FOREVER }));
    await record.until('stdout');
    await launcher.stop(0);
    expect(record.lines).toContain('finished e1/1 failed AGENT_LOST');
    expect(launcher.state).toBe('closed');
  });
});

test('a launcher that cannot start says why', async () => {
  const directory = tempDir();
  const options = {
    python: 'python3',
    jobPython: '/does/not/exist',
    dataDir: directory,
    socketPath: join(directory, 'launcher.sock'),
    allowUnsandboxed: false,
    spoolBytes: undefined,
  };
  const launcher = new Launcher({
    socketPath: options.socketPath,
    start: () => startLauncher(options),
    events: connectLauncher(directory).record.events,
    logger: silentLogger(),
  });
  onTestFinished(() => launcher.close());
  await expect(launcher.open()).rejects.toThrow(/the launcher did not start: .*\/does\/not\/exist/);
});
