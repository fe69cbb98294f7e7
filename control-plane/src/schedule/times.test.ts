import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { boundedTimes, cronTimes, intervalTimes, singleTime, type Times } from './times.ts';

const at = (text: string) => Date.parse(text);
const texts = (ms: readonly number[]) => ms.map((one) => new Date(one).toISOString().replace('.000Z', 'Z'));

function next(times: Times, from: string, count: number): string[] {
  const found: number[] = [];
  let ms: number | undefined = at(from);
  while (found.length < count) {
    ms = times.after(ms);
    if (ms === undefined) break;
    found.push(ms);
  }
  return texts(found);
}

describe('when clocks go forward (Berlin, 2026-03-29, 02:00 is 03:00)', () => {
  test('a fixed time that does not exist is the first one behind the gap', () => {
    expect(next(cronTimes('30 2 * * *', 'Europe/Berlin'), '2026-03-28T00:00:00Z', 3)).toEqual([
      '2026-03-28T01:30:00Z',
      '2026-03-29T01:00:00Z',
      '2026-03-30T00:30:00Z',
    ]);
  });

  test('several of them are one', () => {
    expect(next(cronTimes('0,15,30 2 * * *', 'Europe/Berlin'), '2026-03-28T12:00:00Z', 2)).toEqual([
      '2026-03-29T01:00:00Z',
      '2026-03-30T00:00:00Z',
    ]);
  });

  test('times of a clock that runs on have no gap', () => {
    expect(next(cronTimes('*/30 * * * *', 'Europe/Berlin'), '2026-03-29T00:10:00Z', 4)).toEqual([
      '2026-03-29T00:30:00Z',
      '2026-03-29T01:00:00Z',
      '2026-03-29T01:30:00Z',
      '2026-03-29T02:00:00Z',
    ]);
    expect(next(cronTimes('*/30 2 * * *', 'Europe/Berlin'), '2026-03-28T12:00:00Z', 1)).toEqual([
      '2026-03-30T00:00:00Z',
    ]);
  });
});

describe('when clocks go back (Berlin, 2026-10-25, 03:00 is 02:00)', () => {
  test('a fixed time that comes twice is the first of the two', () => {
    expect(next(cronTimes('0 30 2,14 * * *', 'Europe/Berlin'), '2026-10-24T13:00:00Z', 3)).toEqual([
      '2026-10-25T00:30:00Z',
      '2026-10-25T13:30:00Z',
      '2026-10-26T01:30:00Z',
    ]);
  });

  test('times of a clock that runs on come twice', () => {
    expect(next(cronTimes('*/30 2 * * *', 'Europe/Berlin'), '2026-10-24T12:00:00Z', 5)).toEqual([
      '2026-10-25T00:00:00Z',
      '2026-10-25T00:30:00Z',
      '2026-10-25T01:00:00Z',
      '2026-10-25T01:30:00Z',
      '2026-10-26T01:00:00Z',
    ]);
  });
});

test('an interval takes no notice of clocks', () => {
  const times = intervalTimes(at('2026-03-28T22:00:00Z'), 2 * 3_600_000);
  expect(next(times, '2026-01-01T00:00:00Z', 3)).toEqual([
    '2026-03-28T22:00:00Z',
    '2026-03-29T00:00:00Z',
    '2026-03-29T02:00:00Z',
  ]);
});

test('seconds, and the words for usual times', () => {
  expect(next(cronTimes('*/20 * * * * *', 'UTC'), '2026-01-01T00:00:00.500Z', 3)).toEqual([
    '2026-01-01T00:00:20Z',
    '2026-01-01T00:00:40Z',
    '2026-01-01T00:01:00Z',
  ]);
  expect(next(cronTimes('@daily', 'Asia/Kolkata'), '2026-01-01T00:00:00Z', 1)).toEqual(['2026-01-01T18:30:00Z']);
});

test('a start is a time, an end is none', () => {
  const bounded = boundedTimes(cronTimes('0 * * * *', 'UTC'), at('2026-01-01T03:00:00Z'), at('2026-01-01T05:00:00Z'));
  expect(next(bounded, '2026-01-01T00:00:00Z', 9)).toEqual(['2026-01-01T03:00:00Z', '2026-01-01T04:00:00Z']);
  expect(texts(bounded.latest(9, 0, at('2027-01-01T00:00:00Z')))).toEqual([
    '2026-01-01T03:00:00Z',
    '2026-01-01T04:00:00Z',
  ]);
});

test.each([
  '',
  '* * * *',
  '61 * * * *',
  '* * * * * * 2030',
  '2026-05-01T00:00:00',
  '@reboot',
  '0 0 * * FOO',
  '/5 * * * *',
])('"%s" is no expression', (expression) => {
  expect(() => cronTimes(expression, 'UTC')).toThrow();
});

test('an unknown time zone is told apart', () => {
  expect(() => cronTimes('* * * * *', 'Mars/Olympus')).toThrow(RangeError);
});

test('a day that never comes has no times', () => {
  expect(cronTimes('0 0 30 2 *', 'UTC').after(at('2026-01-01T00:00:00Z'))).toBeUndefined();
});

test('times that all are in gaps are none, and one is found over a gap', () => {
  // All of Sundays on which the hour does not exist, in each second of it.
  const never = cronTimes('* * 2 * 3 0L', 'Europe/Berlin');
  expect(never.after(at('2026-01-01T00:00:00Z'))).toBeUndefined();
  // In the hour that comes twice.
  expect(never.after(at('2026-10-25T00:30:00Z'))).toBeUndefined();
  expect(never.latest(9, at('2000-01-01T00:00:00Z'), at('2026-12-01T00:00:00Z'))).toEqual([]);
  expect(next(cronTimes('* * 2 29 3 *', 'Europe/Berlin'), '2026-01-01T00:00:00Z', 1)).toEqual(['2027-03-29T00:00:00Z']);
});

test('the rarest date is found', () => {
  expect(next(cronTimes('0 0 29 2 +1', 'UTC'), '2072-03-01T00:00:00Z', 2)).toEqual([
    '2112-02-29T00:00:00Z',
    '2140-02-29T00:00:00Z',
  ]);
});

const field = (low: number, high: number) =>
  fc.oneof(
    fc.constant('*'),
    fc.integer({ min: low, max: high }).map(String),
    fc.integer({ min: 2, max: Math.max(2, high >> 1) }).map((step) => `*/${step}`),
    fc
      .tuple(fc.integer({ min: low, max: high }), fc.integer({ min: low, max: high }))
      .map(([a, b]) => `${Math.min(a, b)}-${Math.max(a, b)}`),
    fc.tuple(fc.integer({ min: low, max: high }), fc.integer({ min: low, max: high })).map(([a, b]) => `${a},${b}`),
  );
const ZONES = ['UTC', 'Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe', 'Africa/Cairo', 'Antarctica/Troll'];
/** Within some hours of a change of clocks. */
const nearAChange = fc
  .constantFrom('2026-03-29T01:00:00Z', '2026-10-25T01:00:00Z', '2026-03-08T07:00:00Z', '2026-10-03T15:30:00Z')
  .chain((change) => fc.integer({ min: -5 * 3_600_000, max: 5 * 3_600_000 }).map((ms) => at(change) + ms));
const anyTimes = fc.oneof(
  fc
    .tuple(field(0, 59), field(0, 59), field(0, 23), field(1, 28), field(1, 12), fc.constant('*'))
    .chain((fields) => fc.constantFrom(...ZONES).map((zone) => cronTimes(fields.join(' '), zone))),
  fc
    .tuple(fc.integer({ min: 1_000, max: 10_000_000 }), nearAChange)
    .map(([everyMs, firstMs]) => intervalTimes(firstMs, everyMs)),
  nearAChange.map(singleTime),
);

test('what is found backwards is what is found forwards, in any zone and over any change of clocks', () => {
  fc.assert(
    fc.property(anyTimes, nearAChange, (times, fromMs) => {
      const forwards: number[] = [];
      for (let ms = times.after(fromMs); ms !== undefined && forwards.length < 8; ms = times.after(ms))
        forwards.push(ms);
      const last = forwards.at(-1) ?? fromMs;
      expect(forwards).toEqual(forwards.toSorted((a, b) => a - b));
      expect(new Set(forwards).size).toBe(forwards.length);
      expect(times.latest(100, fromMs, last)).toEqual(forwards);
      expect(times.latest(3, fromMs, last + 999)).toEqual(times.latest(100, fromMs, last + 999).slice(-3));
      for (const ms of forwards) expect(times.after(ms - 1)).toBe(ms);
    }),
  );
});
