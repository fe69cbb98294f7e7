import { HarrierError } from '@harrier/shared';
import { beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { ensureTenant } from '../db/queries/api-keys.ts';
import { uuidv7 } from '../db/uuid.ts';
import { silent, startDatabase } from '../test-support/real-database.ts';
import { insertExecution } from '../test-support/stored-executions.ts';
import { Admission, type AdmissionSettings, type RefusalReason } from './admission.ts';

const ANY: AdmissionSettings = { maxQueued: 0, maxPerSecond: 0, maxActive: 0, maxUnstored: 100 };
// Here, not in a hook: it is closed after the file.
const { cold: sql } = await startDatabase();
let tenantId: string;
let nowMs = 0;
let refused: RefusalReason[];

beforeAll(async () => {});
beforeEach(async () => {
  tenantId = await ensureTenant(sql, uuidv7(), uuidv7());
  refused = [];
});

test('takes anything while there is no bound', () => {
  const admission = admit(ANY);
  for (let i = 0; i < 1000; i++) {
    admission.admit(tenantId);
    admission.admitToQueue(tenantId);
  }
  expect(refused).toEqual([]);
});

test('a full queue takes no more until it is shorter', async () => {
  const admission = admit({ ...ANY, maxQueued: 2 });
  for (let i = 0; i < 2; i++) {
    admission.admitToQueue(tenantId);
    await insertExecution(sql, { tenant_id: tenantId });
  }
  expect(refusalOf(() => admission.admitToQueue(tenantId))).toMatchObject({
    code: 'resource_exhausted',
    message: '2 executions wait for an agent already; try again later',
    retryAfterMs: 2_000,
  });
  admission.admit(tenantId);
  await sql`DELETE FROM execution_queue WHERE tenant_id = ${tenantId}`;
  nowMs += 2_000;
  await vi.waitFor(() => admission.admitToQueue(tenantId));
  expect(new Set(refused)).toEqual(new Set(['queue']));
});

test('what waits from before is counted, of this tenant alone', async () => {
  await insertExecution(sql, { tenant_id: tenantId });
  const admission = admit({ ...ANY, maxQueued: 1 });
  const other = await ensureTenant(sql, uuidv7(), uuidv7());
  await vi.waitFor(() => expect(() => admission.admitToQueue(tenantId)).toThrow(HarrierError));
  admission.admitToQueue(other);
});

test('a tenant has its own bounds', async () => {
  await sql`UPDATE tenants SET max_queued = 0, max_per_second = 1 WHERE id = ${tenantId}`;
  const admission = admit({ ...ANY, maxQueued: 1 });
  await vi.waitFor(() => {
    nowMs += 2_000;
    admission.admit(tenantId);
    expect(() => admission.admit(tenantId)).toThrow(/more than 1 executions a second/);
  });
  for (let i = 0; i < 10; i++) admission.admitToQueue(tenantId);
});

test('beyond its rate a tenant is told how long to wait', () => {
  const admission = admit({ ...ANY, maxPerSecond: 4 });
  for (let i = 0; i < 4; i++) admission.admit(tenantId);
  const refusal = refusalOf(() => admission.admit(tenantId));
  expect(refusal).toMatchObject({ message: 'more than 4 executions a second; try again later', retryAfterMs: 250 });
  nowMs += refusal.retryAfterMs ?? 0;
  admission.admit(tenantId);
});

test('while the database is behind nothing new is taken', () => {
  let unstored = 100;
  const admission = admit(ANY, () => unstored);
  expect(refusalOf(() => admission.admit(tenantId)).message).toContain('100 executions wait for the database');
  unstored = 99;
  admission.admit(tenantId);
  expect(refused).toEqual(['store']);
});

function admit(settings: AdmissionSettings, unstored = () => 0): Admission {
  const onRefused = (reason: RefusalReason) => void refused.push(reason);
  return new Admission({ sql, settings, unstored, onRefused, logger: silent, nowMs: () => nowMs });
}

function refusalOf(call: () => void): HarrierError {
  try {
    call();
  } catch (error) {
    if (error instanceof HarrierError) return error;
    throw error;
  }
  throw new Error('it was taken');
}
