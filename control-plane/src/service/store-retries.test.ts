import { pino } from 'pino';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { StoreRetries } from './store-retries.ts';

const MINUTE_MS = 60_000;
let lines: { level: number; msg: string; reason?: string; times?: number }[];
let retries: StoreRetries;
/** Why the database takes nothing; undefined: it takes everything. */
let refusal: Error | undefined;
/** When something was tried, by the clock of the test. */
let tries: number[];

beforeEach(() => {
  vi.useFakeTimers();
  lines = [];
  tries = [];
  retries = new StoreRetries(pino({ base: null }, { write: (line: string) => lines.push(JSON.parse(line)) }));
});
afterEach(() => {
  retries.stop();
  vi.useRealTimers();
});

const full = (file: string) =>
  Object.assign(new Error(`could not extend file "${file}": No space left on device`), { code: '53100' });
const write = async () => {
  tries.push(performance.now());
  if (refusal !== undefined) throw refusal;
  return 'written';
};
const isFinal = (error: unknown) => error instanceof RangeError;
const about = { executionId: 'an-execution', attempt: 2 };
const store = (what: string) => retries.store({ what, about, isFinal }, write);

test('what the database does not take is tried until it does, with pauses that grow to 5 s and no further', async () => {
  refusal = full('base/1');
  const stored = store('a result');
  await vi.advanceTimersByTimeAsync(10 * MINUTE_MS);
  const pauses = tries.slice(1).map((at, n) => at - (tries[n] ?? 0));
  expect(Math.max(...pauses)).toBeLessThanOrEqual(5_000);
  expect(Math.max(...pauses)).toBeGreaterThan(2_500);
  expect(pauses[0]).toBeLessThanOrEqual(200);
  refusal = undefined;
  await vi.advanceTimersByTimeAsync(5_000);
  expect(await stored).toBe('written');
});

test('a cause is logged when it comes up, then every 30 s with its count, however many wait', async () => {
  refusal = full('base/1');
  const stored = Array.from({ length: 50 }, () => store('log bytes'));
  await vi.advanceTimersByTimeAsync(0);
  refusal = full('base/2');
  await vi.advanceTimersByTimeAsync(5 * MINUTE_MS);
  const told = lines.splice(0);
  expect(told[0]).toMatchObject({ level: 50, msg: 'log bytes could not be stored; trying again', ...about });
  expect(told[0]).not.toHaveProperty('times');
  expect(told.length).toBeGreaterThan(5);
  expect(told.length).toBeLessThanOrEqual(11);
  const counted = told.reduce((sum, { times = 1 }) => sum + times, 0);
  expect(counted).toBeLessThanOrEqual(tries.length);
  // Those since the last line are not told yet: less than a tenth here.
  expect(counted).toBeGreaterThan(0.8 * tries.length);

  refusal = new Error('another cause');
  await vi.advanceTimersByTimeAsync(5_000);
  expect(lines.splice(0)).toMatchObject([{ reason: 'another cause' }]);
  refusal = undefined;
  await vi.advanceTimersByTimeAsync(5_000);
  await Promise.all(stored);
  expect(lines).toMatchObject([{ level: 30, msg: 'the database has taken all that could not be stored' }]);
});

test('when one is taken, the others are tried at once', async () => {
  refusal = full('base/1');
  const stored = Array.from({ length: 20 }, () => store('a result'));
  await vi.advanceTimersByTimeAsync(MINUTE_MS);
  refusal = undefined;
  const before = tries.length;
  await vi.advanceTimersToNextTimerAsync();
  expect(await Promise.all(stored)).toEqual(Array.from({ length: 20 }, () => 'written'));
  expect(tries.length).toBe(before + 20);
  expect(new Set(tries.slice(before)).size).toBe(1);
  expect(vi.getTimerCount()).toBe(0);
});

test('one that waits is tried as soon as another one is taken at its first try, and then not with each of them', async () => {
  refusal = full('base/1');
  const stored = store('a result');
  await vi.advanceTimersByTimeAsync(MINUTE_MS);
  const before = tries.length;
  await retries.store({ what: 'a result', about, isFinal }, async () => 'small enough');
  await vi.advanceTimersByTimeAsync(0);
  expect(tries.length).toBe(before + 1);
  for (let n = 0; n < 50; n++) await retries.store({ what: 'a result', about, isFinal }, async () => 'small enough');
  await vi.advanceTimersByTimeAsync(0);
  expect(tries.length).toBe(before + 1);
  expect(lines).not.toContainEqual(expect.objectContaining({ level: 30 }));
  await vi.advanceTimersByTimeAsync(200);
  refusal = undefined;
  await retries.store({ what: 'a result', about, isFinal }, async () => 'small enough');
  await vi.advanceTimersByTimeAsync(0);
  expect(await stored).toBe('written');
  expect(lines.at(-1)).toMatchObject({ level: 30 });
});

test('what can never be stored is thrown, and what waits is given up at the stop', async () => {
  refusal = new RangeError('too large');
  await expect(store('a result')).rejects.toThrow('too large');
  refusal = full('base/1');
  const stored = expect(store('a result')).rejects.toThrow('the control plane stops');
  await vi.advanceTimersByTimeAsync(0);
  retries.stop();
  await stored;
  expect(vi.getTimerCount()).toBe(0);
});
