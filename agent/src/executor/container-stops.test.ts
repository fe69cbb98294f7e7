import { expect, onTestFinished, test, vi } from 'vitest';
import type { ContainerRun } from '../docker/container-run.ts';
import { silentLogger } from '../test-support/silent-logger.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { ContainerStops } from './container-stops.ts';
import { type AttemptFacts, DockerAttempt } from './docker-attempt.ts';

const HOUR_MS = 3_600_000;
const FACTS: AttemptFacts = {
  executionId: 'e',
  attempt: 1,
  tenant: 'acme',
  taskClass: 'cpu_short',
  program: 'command',
  file: 'sh',
  timeoutMs: 60_000,
  memoryBytes: 1,
  outputBytes: 1,
  stdoutBytes: 1,
  stderrBytes: 1,
  logBytes: 1,
};

/** An attempt of one directory, and what its container is sent, with a clock of the host that the test moves. */
function setUp(directory = tempDir()) {
  const signal = vi.fn(async () => {});
  const attempt = new DockerAttempt(directory, FACTS, { signal } as never as ContainerRun, () => {});
  attempt.started = true;
  onTestFinished(() => attempt.close());
  return { attempt, signal };
}

/** Time passes by both clocks, and then somebody sets that of the calendar. */
function later(ms: number, steppedMs: number): void {
  vi.setSystemTime(Date.now() + ms + steppedMs);
}

test.each([
  ['forward', HOUR_MS],
  ['backward', -HOUR_MS],
])(
  'a container that is taken up again after the clock was set %s by an hour has the rest of its time',
  async (_, steppedMs) => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] });
    onTestFinished(() => void vi.useRealTimers());
    let nowMs = 5_000;
    const stops = new ContainerStops(silentLogger(), () => nowMs);
    const directory = tempDir();
    const startedAtMs = Date.now();
    const before = setUp(directory);
    stops.noteStart(before.attempt);
    stops.startTimeout(before.attempt, startedAtMs);
    before.attempt.close();
    nowMs += 20_000;
    later(20_000, steppedMs);
    const { attempt, signal } = setUp(directory);
    stops.startTimeout(attempt, startedAtMs);
    await vi.advanceTimersByTimeAsync(39_999);
    expect(signal).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(1);
    expect(signal).toHaveBeenCalledWith('SIGTERM');
    expect(attempt.ending).toBe('timeout');
  },
);

test('one of a former version, which has noted no start, has what the engine says', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] });
  onTestFinished(() => void vi.useRealTimers());
  const { attempt, signal } = setUp();
  new ContainerStops(silentLogger(), () => 0).startTimeout(attempt, Date.now() - 59_000);
  await vi.advanceTimersByTimeAsync(999);
  expect(signal).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(1);
  expect(signal).toHaveBeenCalledWith('SIGTERM');
});
