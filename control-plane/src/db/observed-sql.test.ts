import { afterAll, expect, test } from 'vitest';
import { startDatabase } from '../test-support/real-database.ts';
import { observedSql, StatementObserver } from './observed-sql.ts';

const pool = (await startDatabase()).connect();
afterAll(() => pool.end());

function observe() {
  const observer = new StatementObserver();
  const ends: boolean[] = [];
  observer.onEnd((seconds, failed) => {
    expect(seconds).toBeGreaterThanOrEqual(0);
    ends.push(failed);
  });
  return { observer, ends, sql: observedSql(pool, observer) };
}

test('each statement is told once when it is answered, with its answer as before', async () => {
  const { sql, observer, ends } = observe();
  const condition = sql`AND ${1} = 1`;
  const answer = sql<{ n: number }[]>`SELECT n FROM (VALUES (1), (2)) AS v(n) WHERE n > ${1} ${condition}`;
  expect(ends, 'it is not run before somebody waits').toEqual([]);
  expect((await answer).map(({ n }) => n)).toEqual([2]);
  expect([ends, observer.active], 'a part of another statement is none').toEqual([[false], 0]);
});

test('a statement that fails says so, and throws what it threw', async () => {
  const { sql, observer, ends } = observe();
  await expect(sql`SELECT nonsense`).rejects.toMatchObject({ code: '42703' });
  expect([ends, observer.active]).toEqual([[true], 0]);
});

test('a transaction is one, whatever is in it', async () => {
  const { sql, observer, ends } = observe();
  const result = await sql.begin(async (transaction) => {
    expect(observer.active).toBe(1);
    await transaction`SELECT 1`;
    await transaction`SELECT 2`;
    return 'done';
  });
  expect([result, ends, observer.active]).toEqual(['done', [false], 0]);
  await expect(sql.begin(async (transaction) => await transaction`SELECT nonsense`)).rejects.toThrow();
  expect([ends, observer.active]).toEqual([[false, true], 0]);
});

test('statements under way are counted', async () => {
  const { sql, observer, ends } = observe();
  const answers = [sql`SELECT 1`, sql`SELECT 2`, sql`SELECT 3`].map((query) => query.execute());
  await new Promise((resolve) => setImmediate(resolve));
  expect(observer.active + ends.length).toBe(3);
  await Promise.all(answers);
  expect([ends.length, observer.active]).toEqual([3, 0]);
});
