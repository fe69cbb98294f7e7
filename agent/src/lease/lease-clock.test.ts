import fc from 'fast-check';
import { expect, test } from 'vitest';
import { LeaseClock } from './lease-clock.ts';

test('a session begins with a lease from its hello', () => {
  const clock = new LeaseClock();
  expect(clock.endMs).toBeUndefined();
  clock.begin(1_000, 30_000);
  expect(clock.endMs).toBe(31_000);
});

test('an answer renews from the moment at which the heartbeat was sent, not from its own', () => {
  const clock = new LeaseClock();
  clock.begin(0, 30_000);
  clock.sent(1n, 10_000);
  clock.sent(2n, 20_000);
  expect(clock.renewed(1n)).toBe(true);
  expect(clock.endMs).toBe(40_000);
});

test('a control plane without leases never ends one', () => {
  const clock = new LeaseClock();
  clock.begin(0, 30_000);
  clock.begin(5_000, 0);
  clock.sent(1n, 6_000);
  expect(clock.renewed(1n)).toBe(false);
  expect(clock.endMs).toBeUndefined();
});

test('a shorter lease of a new session counts', () => {
  const clock = new LeaseClock();
  clock.begin(0, 30_000);
  clock.begin(1_000, 3_000);
  expect(clock.endMs).toBe(4_000);
});

type Event = { kind: 'hello' | 'beat' | 'answer'; afterMs: number; pick: number; leaseMs: number };

const event: fc.Arbitrary<Event> = fc.record({
  kind: fc.constantFrom('hello', 'beat', 'beat', 'answer', 'answer'),
  afterMs: fc.nat(20_000),
  pick: fc.nat(100),
  leaseMs: fc.integer({ min: 3_000, max: 60_000 }),
});

test('whatever is sent, lost, repeated or comes late: the lease never ends later than the control plane lets it', () => {
  fc.assert(
    fc.property(fc.array(event, { maxLength: 60 }), (events) => {
      const clock = new LeaseClock();
      let nowMs = 0;
      let leaseMs = 0;
      /** What the control plane may answer: also what it has answered before, and what was never sent. */
      let sentAtMs: number[] = [];
      /** The newest moment that was answered in this session; the control plane counts from later ones only. */
      let answeredMs = Number.NaN;
      for (const { kind, afterMs, pick, ...given } of events) {
        nowMs += afterMs;
        const before = clock.endMs;
        if (kind === 'hello') {
          leaseMs = given.leaseMs;
          sentAtMs = [];
          answeredMs = nowMs;
          clock.begin(nowMs, leaseMs);
        } else if (kind === 'beat') {
          sentAtMs.push(nowMs);
          clock.sent(BigInt(sentAtMs.length), nowMs);
          expect(clock.endMs, 'sending alone renews nothing').toBe(before);
        } else {
          const number = pick % (sentAtMs.length + 2);
          answeredMs = Math.max(answeredMs, sentAtMs[number - 1] ?? 0);
          const renewed = clock.renewed(BigInt(number));
          if (renewed) expect(clock.endMs ?? 0).toBeGreaterThanOrEqual(before ?? 0);
          else expect(clock.endMs).toBe(before);
        }
        expect(clock.endMs).toBe(leaseMs === 0 ? undefined : answeredMs + leaseMs);
      }
    }),
  );
});
