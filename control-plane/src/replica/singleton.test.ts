import { expect, test } from 'vitest';
import { startDatabase } from '../test-support/real-database.ts';
import { runAlone } from './singleton.ts';

const { control, cold } = await startDatabase();
const KEY = 77;

test('a job runs at one place at a time, and again when that one is done', async () => {
  const begun = Promise.withResolvers<void>();
  const end = Promise.withResolvers<void>();
  const first = runAlone(control, KEY, async () => {
    begun.resolve();
    await end.promise;
  });
  await begun.promise;
  const never = async () => {
    throw new Error('two at once');
  };
  expect(await runAlone(cold, KEY, never)).toBe(false);
  let other = false;
  expect(
    await runAlone(cold, KEY + 1, async () => {
      other = true;
    }),
  ).toBe(true);
  expect(other).toBe(true);
  end.resolve();
  expect(await first).toBe(true);
  expect(await runAlone(cold, KEY, async () => {})).toBe(true);
});

test('a job that fails frees its place', async () => {
  const failing = async () => {
    throw new Error('broken');
  };
  await expect(runAlone(control, KEY, failing)).rejects.toThrow('broken');
  expect(await runAlone(cold, KEY, async () => {})).toBe(true);
});

test('the place of one whose connection is lost is free', async () => {
  const begun = Promise.withResolvers<number>();
  const end = Promise.withResolvers<void>();
  const first = runAlone(control, KEY, async () => {
    const [holder] = await cold<{ pid: number }[]>`
      SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = ${KEY}`;
    begun.resolve(holder?.pid ?? 0);
    await end.promise;
  }).catch(() => false);
  const pid = await begun.promise;
  await cold`SELECT pg_terminate_backend(${pid}, 5000)`;
  expect(await runAlone(cold, KEY, async () => {})).toBe(true);
  end.resolve();
  expect(await first).toBe(false);
});
