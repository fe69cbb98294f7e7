import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { Stopper } from './stopper.ts';
import { silentLogger } from './test-support/silent-logger.ts';

function setUp(options: { active: number; stopLauncher?: boolean }) {
  vi.useFakeTimers();
  onTestFinished(() => void vi.useRealTimers());
  const done: string[] = [];
  const table = {
    active: options.active,
    cancelAll: vi.fn(() => void done.push('cancel')),
    giveBackPreparations: vi.fn(() => void done.push('give back')),
    setClosed: vi.fn(),
  };
  const launcher = { stop: vi.fn(() => Promise.resolve()) };
  const announce = vi.fn();
  const stopper = new Stopper({
    config: { stopGraceMs: 30_000, stopLauncher: options.stopLauncher ?? false },
    table,
    launcher,
    isQuiet: () => table.active === 0,
    announce,
    logger: silentLogger(),
  });
  return { table, launcher, announce, stopper, done };
}

describe('an agent that is asked to stop', () => {
  test('and has nothing to do is gone at once', async () => {
    const { stopper, launcher, announce, table } = setUp({ active: 0 });
    await stopper.stop();
    expect(stopper.state).toBe('stopped');
    expect(announce).toHaveBeenCalledTimes(1);
    expect(table.setClosed).toHaveBeenCalledWith('the agent is stopping');
    expect(launcher.stop).not.toHaveBeenCalled();
  });

  test('lets running work end', async () => {
    const { stopper, table } = setUp({ active: 1 });
    const stopped = stopper.stop();
    await vi.advanceTimersByTimeAsync(29_000);
    expect(stopper.state).toBe('finishing');
    table.active = 0;
    stopper.notice();
    await stopped;
    expect(table.cancelAll).not.toHaveBeenCalled();
  });

  test('leaves what takes longer than the grace to the launcher', async () => {
    const { stopper, table, launcher } = setUp({ active: 1 });
    const stopped = stopper.stop();
    await vi.advanceTimersByTimeAsync(30_000);
    await stopped;
    expect(table.cancelAll).not.toHaveBeenCalled();
    expect(launcher.stop).not.toHaveBeenCalled();
  });

  test('twice gives back what is being prepared, and cancels what runs', async () => {
    const { stopper, table, done } = setUp({ active: 1 });
    const stopped = stopper.stop();
    stopper.hurry();
    await vi.advanceTimersByTimeAsync(0);
    expect(table.cancelAll).toHaveBeenCalledWith(5_000);
    expect(done).toEqual(['give back', 'cancel']);
    table.active = 0;
    stopper.notice();
    await stopped;
  });

  test('with its launcher cancels what takes longer than the grace, and stops the launcher', async () => {
    const { stopper, launcher, done } = setUp({ active: 1, stopLauncher: true });
    const stopped = stopper.stop();
    await vi.advanceTimersByTimeAsync(30_000);
    expect(done).toEqual(['give back', 'cancel']);
    await vi.advanceTimersByTimeAsync(8_000);
    await stopped;
    expect(launcher.stop).toHaveBeenCalledTimes(1);
  });

  test('because it is not wanted kills what runs', async () => {
    const { stopper, table, launcher } = setUp({ active: 1, stopLauncher: true });
    await stopper.abandon();
    expect(table.cancelAll).toHaveBeenCalledWith(0, true);
    expect(launcher.stop).toHaveBeenCalledTimes(1);
  });

  test('does not wait for a launcher that does not end', async () => {
    const { stopper, launcher } = setUp({ active: 0, stopLauncher: true });
    launcher.stop.mockReturnValue(new Promise(() => {}));
    const stopped = stopper.stop();
    await vi.advanceTimersByTimeAsync(3_000);
    await stopped;
    expect(stopper.state).toBe('stopped');
  });
});
