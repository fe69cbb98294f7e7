import { expect, onTestFinished, test, vi } from 'vitest';
import { DatabaseClock } from './database-clock.ts';

test('the time is that of the database, whatever is done to the clock of the replica', () => {
  const clock = new DatabaseClock();
  expect(clock.isKnown).toBe(false);
  expect(() => clock.nowMs).toThrow('not known yet');
  vi.useFakeTimers({ toFake: ['Date', 'performance'] });
  onTestFinished(() => {
    vi.useRealTimers();
  });
  clock.set(1_000_000);
  expect(clock.isKnown).toBe(true);
  vi.advanceTimersByTime(250);
  expect(clock.nowMs).toBe(1_000_250);
  vi.setSystemTime(Date.now() + 3_600_000);
  expect(clock.nowMs).toBe(1_000_250);
  clock.set(2_000_000);
  expect(clock.nowMs).toBe(2_000_000);
});
