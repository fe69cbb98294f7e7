import { Goodbye_Code as Code } from '@harrier/shared/gen/link';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { LINK_TIMINGS } from './link-timings.ts';
import { afterLink } from './reconnect-policy.ts';

const LOST = { kind: 'lost', message: 'gone' } as const;

test.each([
  [Code.REVOKED, 'deleted this agent'],
  [Code.REFUSED, 'refused this agent: bad token'],
  [Code.REPLACED, 'another process has linked'],
])('goodbye %s ends the tries, and says why', (code, reason) => {
  const next = afterLink(
    { kind: 'goodbye', code, message: 'bad token' },
    { failures: 0, linkedMs: 1000, urls: 1 },
    LINK_TIMINGS,
  );
  expect(next).toEqual({ kind: 'give-up', reason: expect.stringContaining(reason) });
});

test('a control plane that stops is come back to at once', () => {
  const end = { kind: 'goodbye', code: Code.SHUTDOWN, message: '' } as const;
  expect(afterLink(end, { failures: 5, linkedMs: 1, urls: 1 }, LINK_TIMINGS, () => 1)).toEqual({
    kind: 'retry',
    waitMs: 250,
    failures: 0,
  });
});

test('a control plane that stops during the handshake counts as a failure', () => {
  const end = { kind: 'goodbye', code: Code.SHUTDOWN, message: '' } as const;
  expect(afterLink(end, { failures: 2, linkedMs: 0, urls: 1 }, LINK_TIMINGS, () => 1)).toEqual({
    kind: 'retry',
    waitMs: 1000,
    failures: 3,
  });
});

test('the wait grows to its bound, and starts anew after a stable link', () => {
  fc.assert(
    fc.property(fc.nat(100), fc.double({ min: 0, max: 1, noNaN: true }), (failures, random) => {
      const next = afterLink(LOST, { failures, linkedMs: 0, urls: 1 }, LINK_TIMINGS, () => random);
      expect(next).toMatchObject({ kind: 'retry', failures: failures + 1 });
      if (next.kind === 'retry') expect(next.waitMs).toBeLessThanOrEqual(Math.min(30_000, 250 * 2 ** failures));
      expect(afterLink(LOST, { failures, linkedMs: 30_000, urls: 1 }, LINK_TIMINGS, () => 1)).toMatchObject({
        waitMs: 250,
        failures: 1,
      });
    }),
  );
});

test('of several control planes each is tried once before the next wait, which grows from round to round', () => {
  const waits: number[] = [];
  let failures = 0;
  for (let count = 0; count < 9; count++) {
    const next = afterLink(LOST, { failures, linkedMs: 0, urls: 3 }, LINK_TIMINGS, () => 1);
    if (next.kind !== 'retry') throw new Error(next.reason);
    waits.push(next.waitMs);
    failures = next.failures;
  }
  const { switchJitterMs: switching } = LINK_TIMINGS;
  expect(waits).toEqual([switching, switching, 250, switching, switching, 500, switching, switching, 1000]);
});
