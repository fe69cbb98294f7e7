import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import { claimWaiting } from '../../test-support/claim-waiting.ts';
import { startDatabase } from '../../test-support/real-database.ts';
import { insertExecution } from '../../test-support/stored-executions.ts';
import { uuidv7 } from '../uuid.ts';
import { ensureTenant } from './api-keys.ts';
import { compactQueue } from './compact-queue.ts';

const { hot, cold: sql } = await startDatabase();
const tenant_id = await ensureTenant(sql, uuidv7(), 'default');
const agentId = randomUUID();

test('what has gone leaves the queue although an old transaction might see it, and what waits stays in its order', async () => {
  await insertExecution(sql, { tenant_id });
  const old = await hot.reserve();
  await old`BEGIN ISOLATION LEVEL REPEATABLE READ`;
  await old`SELECT id FROM executions`;
  await claim(10);
  for (let i = 0; i < 500; i++) await insertExecution(sql, { tenant_id });
  await claim(500);
  const urgent = await insertExecution(sql, { tenant_id, priority: 9 });
  const [first, second] = [await insertExecution(sql, { tenant_id }), await insertExecution(sql, { tenant_id })];
  await sql`VACUUM execution_queue`;
  const before = await pages();
  expect(before).toBeGreaterThan(1);
  expect(await compactQueue(sql)).toBe(true);
  expect(await pages()).toBe(1);
  expect(await claim(10)).toEqual([urgent, first, second].toSorted((a, b) => (a === urgent ? -1 : a < b ? -1 : 1)));
  await old`COMMIT`;
  old.release();
});

test('somebody who has the queue for long is not waited for', async () => {
  const holder = await hot.reserve();
  await holder`BEGIN`;
  await holder`LOCK TABLE execution_queue IN ROW SHARE MODE`;
  expect(await compactQueue(sql)).toBe(false);
  await holder`COMMIT`;
  holder.release();
  expect(await compactQueue(sql)).toBe(true);
});

async function claim(limit: number): Promise<string[]> {
  const { claimed } = await claimWaiting(sql, (waiting) => waiting.slice(0, limit).map(({ id }) => ({ id, agentId })));
  return claimed.map(({ id }) => id);
}

async function pages(): Promise<number> {
  const [row] = await sql<{ pages: number }[]>`
    SELECT (pg_relation_size('execution_queue') / current_setting('block_size')::int)::int AS pages`;
  return row?.pages ?? 0;
}
