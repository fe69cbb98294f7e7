import { expect, test } from 'vitest';
import { HealthTally } from './health-tally.ts';

test('a service is unhealthy after as many failures in a row as it may have', () => {
  const tally = new HealthTally({ retries: 2, startPeriodMs: 0 });
  expect(tally.health).toBe('starting');
  const seen = [undefined, 'no', undefined, 'no', 'no', undefined].map((problem) => {
    tally.add(problem, 1_000);
    return `${tally.health} ${tally.message}`.trim();
  });
  expect(seen).toEqual(['healthy', 'healthy no', 'healthy', 'healthy no', 'unhealthy no', 'healthy']);
});

test('failures in the start period do not count, until the first success', () => {
  const tally = new HealthTally({ retries: 1, startPeriodMs: 1_000 });
  tally.add('not yet', 999);
  expect(tally.health).toBe('starting');
  tally.add(undefined, 999);
  tally.add('broken', 999);
  expect(tally.health).toBe('unhealthy');
  const late = new HealthTally({ retries: 1, startPeriodMs: 1_000 });
  late.add('broken', 1_000);
  expect(late.health).toBe('unhealthy');
});
