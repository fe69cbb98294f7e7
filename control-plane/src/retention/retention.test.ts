import { randomUUID } from 'node:crypto';
import { Execution_State as State, LogChunk_Stream as Stream } from '@harrier/shared/gen/execution';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { ensureTenant } from '../db/queries/api-keys.ts';
import { BEFORE_ALL_EVENTS, readEvents, saveReaderPosition } from '../db/queries/events.ts';
import { finishExecutions } from '../db/queries/finish-executions.ts';
import { storeLogChunks } from '../db/queries/log-chunks.ts';
import type { Sql } from '../db/sql.ts';
import { uuidv7 } from '../db/uuid.ts';
import { silent, startDatabase } from '../test-support/real-database.ts';
import { finishedRow, insertExecution } from '../test-support/stored-executions.ts';
import { Retention, type RetentionSettings } from './retention.ts';

let sql: Sql;
let tenantId: string;
const agentId = randomUUID();
const FOREVER: RetentionSettings = { executionDays: 0, logDays: 0, eventDays: 0, maxBytes: 0 };

beforeAll(async () => {
  sql = (await startDatabase()).cold;
});
beforeEach(async () => {
  tenantId = await ensureTenant(sql, uuidv7(), randomUUID());
});

describe('by age', () => {
  test('executions that ended before go with their logs; younger ones and those that run stay', async () => {
    const [old, young] = [await finished({ daysAgo: 8 }), await finished({ daysAgo: 6 })];
    const running = await insertExecution(sql, {
      id: idOf(30),
      tenant_id: tenantId,
      agent_id: agentId,
      attempt: 1,
      state: State.RUNNING,
    });
    const endedLately = await finished({ daysAgo: 30, endedDaysAgo: 1 });
    await tidy({ ...FOREVER, executionDays: 7 });
    expect(await kept()).toEqual([running, endedLately, young].toSorted());
    expect(await logsOf(old)).toBe(0);
    expect(await logsOf(young)).toBe(1);
  });

  test('logs may go before their executions, and are not counted any more', async () => {
    const old = await finished({ daysAgo: 3, logBytes: 5_000 });
    await tidy(FOREVER);
    const before = await storedBytes();
    await tidy({ ...FOREVER, logDays: 2 });
    expect(await kept()).toEqual([old]);
    expect(await logsOf(old)).toBe(0);
    expect(before - (await storedBytes())).toBe(5_000);
    await tidy({ ...FOREVER, executionDays: 2 });
    expect(await storedBytes()).toBe(0);
  });

  test('a tenant has its own times', async () => {
    await finished({ daysAgo: 3 });
    await sql`UPDATE tenants SET execution_retention_days = 2 WHERE id = ${tenantId}`;
    await tidy({ ...FOREVER, executionDays: 30 });
    expect(await kept()).toEqual([]);
  });

  test('events wait for every reader that still comes', async () => {
    await finished({ daysAgo: 0 });
    await sql`UPDATE events SET time = now() - interval '3 days'`;
    await saveReaderPosition(sql, 'slow', BEFORE_ALL_EVENTS);
    await tidy({ ...FOREVER, eventDays: 2 });
    expect(await readEvents(sql, BEFORE_ALL_EVENTS, 1)).toHaveLength(1);
    await sql`UPDATE event_readers SET update_time = now() - interval '8 days' WHERE name = 'slow'`;
    await tidy({ ...FOREVER, eventDays: 2 });
    expect(await readEvents(sql, BEFORE_ALL_EVENTS, 1)).toEqual([]);
  });
});

describe('by size', () => {
  test('the oldest go until what is left fits', async () => {
    const ids: string[] = [];
    for (const daysAgo of [5, 4, 3, 2]) ids.push(await finished({ daysAgo, logBytes: 100_000 }));
    await tidy({ ...FOREVER, maxBytes: 250_000 });
    expect(await kept()).toEqual(ids.slice(2));
    expect(await storedBytes()).toBeLessThanOrEqual(250_000);
    expect(await storedBytes()).toBeGreaterThan(200_000);
  });

  test('each end is counted once, however often it is looked at', async () => {
    await finished({ daysAgo: 1, logBytes: 10_000 });
    await tidy(FOREVER);
    const once = await storedBytes();
    await tidy(FOREVER);
    expect(await storedBytes()).toBe(once);
    expect(once).toBeGreaterThan(10_000);
  });
});

async function tidy(settings: RetentionSettings): Promise<void> {
  const retention = new Retention({ sql, settings, runAlone: async () => false, logger: silent });
  await retention.runOnce();
  await retention.stop();
}

async function finished(given: { daysAgo: number; endedDaysAgo?: number; logBytes?: number }): Promise<string> {
  const { daysAgo, endedDaysAgo = daysAgo, logBytes = 10 } = given;
  const id = idOf(daysAgo);
  const place = { tenant_id: tenantId, agent_id: agentId, attempt: 1 };
  await insertExecution(sql, { id, ...place, state: State.ASSIGNED });
  await storeLogChunks(sql, [
    { tenantId, executionId: id, attempt: 1, stream: Stream.STDOUT, offset: 0, data: Buffer.alloc(logBytes, 'x') },
  ]);
  await finishExecutions(sql, [finishedRow({ id, ...place, stdout_bytes: logBytes })]);
  await sql`UPDATE executions SET end_time = now() - ${endedDaysAgo} * interval '1 day' WHERE id = ${id}`;
  return id;
}

/** An id as it would have been made then. */
function idOf(daysAgo: number): string {
  const hex = (Date.now() - daysAgo * 86_400_000).toString(16).padStart(12, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8)}${uuidv7().slice(13)}`;
}

async function kept(): Promise<string[]> {
  const rows = await sql<{ id: string }[]>`SELECT id FROM executions WHERE tenant_id = ${tenantId} ORDER BY id`;
  return rows.map(({ id }) => id);
}

async function logsOf(id: string): Promise<number> {
  const [row] = await sql<
    { chunks: number }[]
  >`SELECT count(*)::int AS chunks FROM log_chunks WHERE execution_id = ${id}`;
  return row?.chunks ?? 0;
}

async function storedBytes(): Promise<number> {
  const [row] = await sql<{ stored_bytes: number }[]>`SELECT stored_bytes FROM tenants WHERE id = ${tenantId}`;
  return row?.stored_bytes ?? 0;
}
