import fc from 'fast-check';
import { expect, test } from 'vitest';
import { TokenBucket } from './token-bucket.ts';

test('gives the token that was waited for, although rounding has taken a little of it', () => {
  const bucket = new TokenBucket(2.4, 5_000);
  while (bucket.take(5_000) === 0);
  const untilMs = bucket.take(5_015);
  expect(untilMs).toBeGreaterThan(0);
  expect(bucket.take(5_015 + Math.ceil(untilMs))).toBe(0);
});

test('gives no more than a burst and the rate, however it is asked, and no less to who waits as told', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 500 }).map((n) => n / 10),
      fc.array(fc.integer({ min: 0, max: 400 }), { minLength: 1, maxLength: 200 }),
      (perSecond, waitsMs) => {
        let nowMs = 5_000;
        const bucket = new TokenBucket(perSecond, nowMs);
        let taken = 0;
        for (const waitMs of waitsMs) {
          nowMs += waitMs;
          const untilMs = bucket.take(nowMs);
          if (untilMs === 0) taken++;
          else {
            nowMs += Math.ceil(untilMs);
            expect(bucket.take(nowMs)).toBe(0);
            taken++;
          }
        }
        const elapsedMs = nowMs - 5_000;
        expect(taken).toBeLessThanOrEqual(Math.max(1, perSecond) + (elapsedMs * perSecond) / 1000 + 1e-6);
      },
    ),
  );
});
