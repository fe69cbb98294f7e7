import { expect, onTestFinished, test, vi } from 'vitest';
import { Lease } from './lease.ts';

function setUp() {
  vi.useFakeTimers();
  onTestFinished(() => void vi.useRealTimers());
  const events = { onChange: vi.fn(), onStale: vi.fn<(reason: string) => void>() };
  const clock = { nowMs: 1_000_000 };
  const lease = new Lease(events, () => clock.nowMs);
  const pass = (ms: number): void => {
    clock.nowMs += ms;
    vi.advanceTimersByTime(ms);
  };
  return { lease, events, pass };
}

test('says nothing before the first welcome: what a former agent has told holds', () => {
  const { lease } = setUp();
  expect(lease.told).toBeUndefined();
  lease.linkUp(1_000_000, 0);
  expect(lease.told).toEqual({ untilMs: undefined, graceMs: 0 });
});

test('is renewed by the answers to its numbered heartbeats', () => {
  const { lease, events, pass } = setUp();
  lease.linkUp(999_000, 30_000);
  expect(lease.endMs).toBe(1_029_000);
  pass(10_000);
  expect([lease.beat(), lease.beat()]).toEqual([1n, 2n]);
  lease.renewed(2n);
  expect(lease.endMs).toBe(1_040_000);
  expect(events.onChange).toHaveBeenCalledTimes(2);
  lease.renewed(2n);
  lease.renewed(7n);
  expect(events.onChange, 'an answer that says nothing new').toHaveBeenCalledTimes(2);
  expect(events.onStale).not.toHaveBeenCalled();
});

test('while it runs there is some haste to find a control plane, and none after it', () => {
  const { lease, pass } = setUp();
  expect(lease.patienceMs).toBe(Number.POSITIVE_INFINITY);
  lease.linkUp(1_000_000, 30_000);
  lease.linkDown();
  expect(lease.patienceMs).toBe(3_000);
  pass(30_000);
  expect(lease.patienceMs).toBe(Number.POSITIVE_INFINITY);
});

test('numbers start anew with each link', () => {
  const { lease } = setUp();
  lease.linkUp(999_000, 30_000);
  lease.beat();
  lease.linkDown();
  lease.linkUp(1_000_000, 30_000);
  expect(lease.beat()).toBe(1n);
});

test('a link that renews nothing for half a lease is given up', () => {
  const { lease, events, pass } = setUp();
  lease.linkUp(1_000_000, 30_000);
  pass(10_000);
  lease.renewed(lease.beat());
  pass(14_999);
  expect(events.onStale).not.toHaveBeenCalled();
  pass(1);
  expect(events.onStale).toHaveBeenCalledWith('the control plane has not renewed the lease for 15000 ms');
});

test.each([
  ['down', (lease: Lease) => lease.linkDown()],
  ['up to a control plane without leases', (lease: Lease) => lease.linkUp(1_000_000, 0)],
])('a link that is %s is not given up', (_, change) => {
  const { lease, events, pass } = setUp();
  lease.linkUp(1_000_000, 3_000);
  change(lease);
  pass(60_000);
  expect(events.onStale).not.toHaveBeenCalled();
});

test.each([
  [3_000, 750],
  [30_000, 2_000],
  [3_600_000, 2_000],
])('a lease of %d ms leaves %d ms to stop in, less than is left between two heartbeats', (leaseMs, graceMs) => {
  const { lease } = setUp();
  lease.linkUp(1_000_000, leaseMs);
  expect(lease.graceMs).toBe(graceMs);
  expect(graceMs).toBeLessThan((leaseMs * 2) / 3);
});
