import { randomUUID } from 'node:crypto';
import { Execution_State as State, LogChunk_Stream as Stream } from '@harrier/shared/gen/execution';
import { WorkflowRun_State as RunState } from '@harrier/shared/gen/workflow';
import { beforeEach, describe, expect, test } from 'vitest';
import { ensureTenant } from '../db/queries/api-keys.ts';
import { BEFORE_ALL_EVENTS, readEvents, saveReaderPosition } from '../db/queries/events.ts';
import { finishExecutions } from '../db/queries/finish-executions.ts';
import { storeLogChunks } from '../db/queries/log-chunks.ts';
import { clearRemains } from '../db/queries/retention.ts';
import { FIRING } from '../db/queries/schedule-firings.ts';
import { clearDeletedSchedules, deleteSchedule } from '../db/queries/schedules.ts';
import { insertWord } from '../db/queries/workflow-inbox.ts';
import { insertWorkflowRun } from '../db/queries/workflow-runs.ts';
import { storeSteps } from '../db/queries/workflow-steps.ts';
import { uuidv7 } from '../db/uuid.ts';
import { silent, startDatabase } from '../test-support/real-database.ts';
import { finishedRow, insertExecution } from '../test-support/stored-executions.ts';
import { executionKey } from '../workflow/execution-key.ts';
import { Retention, type RetentionSettings } from './retention.ts';

// Here, not in a hook: it is closed after the file.
const { cold: sql } = await startDatabase();
let tenantId: string;
const agentId = randomUUID();
const replicaId = randomUUID();
const FOREVER: RetentionSettings = { executionDays: 0, logDays: 0, eventDays: 0, maxBytes: 0 };

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

  test('firings of schedules go when they are over', async () => {
    const { id, running, queued, young } = await firings();
    await tidy({ ...FOREVER, executionDays: 7 });
    const rows = await sql<{ time: Date }[]>`SELECT time FROM schedule_firings WHERE schedule_id = ${id} ORDER BY time`;
    expect(rows.map(({ time }) => time.getTime())).toEqual([running, queued, young]);
  });

  test('firings of a schedule that was deleted go in batches, and on where a batch was the last of its process', async () => {
    const { id } = await firings();
    const other = await firings('other');
    await sql`INSERT INTO schedule_firings (tenant_id, schedule_id, time, due_time, state, over)
      SELECT ${tenantId}, ${id}, time, time, ${FIRING.skipped}, true
      FROM generate_series(1, 100) AS n, LATERAL (SELECT now() + n * interval '1 s' AS time) AS t`;
    const left = async () => {
      const [row] = await sql<{ firings: number; schedules: number }[]>`SELECT
        (SELECT count(*) FROM schedule_firings WHERE schedule_id = ${id})::int AS firings,
        (SELECT count(*) FROM schedules WHERE id = ${id})::int AS schedules`;
      return row;
    };
    expect(await deleteSchedule(sql, tenantId, 'each')).toBe(true);
    expect(await clearDeletedSchedules(sql, 30)).toBe(true);
    expect(await left()).toEqual({ firings: 74, schedules: 1 });
    expect(await deleteSchedule(sql, tenantId, 'each')).toBe(false);
    await tidy(FOREVER);
    expect(await left()).toEqual({ firings: 0, schedules: 0 });
    expect(await sql`SELECT 1 FROM schedule_firings WHERE schedule_id = ${other.id}`).toHaveLength(4);
  });

  test('a schedule that was deleted is cleared although something of a tenant cannot be', async () => {
    const { id } = await firings();
    expect(await deleteSchedule(sql, tenantId, 'each')).toBe(true);
    // So long ago there was no time.
    await sql`UPDATE tenants SET execution_retention_days = 2147483647 WHERE id = ${tenantId}`;
    await expect(tidy(FOREVER)).rejects.toThrow('out of range');
    await sql`UPDATE tenants SET execution_retention_days = NULL WHERE id = ${tenantId}`;
    expect(await sql`SELECT 1 FROM schedules WHERE id = ${id}`).toEqual([]);
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

describe('runs of workflows', () => {
  test('go by age with their nodes, their log and their executions, which are kept as long as they are', async () => {
    const old = await finishedRun({ daysAgo: 9, endedDaysAgo: 8 });
    const young = await finishedRun({ daysAgo: 9, endedDaysAgo: 6 });
    const open = await run({ daysAgo: 9 });
    await executionOf(old, 8.5);
    const ofKept = [await executionOf(young, 8.5), await executionOf(open, 8.5)];
    await finished({ daysAgo: 8.5 });
    await tidy({ ...FOREVER, executionDays: 7 });
    expect(await keptRuns()).toEqual([young, open].toSorted());
    expect(await kept()).toEqual(ofKept.toSorted());
    expect(await remainsOf(old)).toEqual({ nodes: 0, lines: 0 });
    expect(await remainsOf(young)).toEqual({ nodes: 2, lines: 3 });
  });

  test('stay when somebody has asked for them to be started again', async () => {
    const asked = await finishedRun({ daysAgo: 9 });
    await insertWord(sql, { tenantId, runId: asked, event: { type: 'retry' } });
    await tidy({ ...FOREVER, executionDays: 7 });
    expect(await keptRuns()).toEqual([asked]);
  });

  test('take their place among the oldest when there is too little space, and give it back', async () => {
    await finished({ daysAgo: 9, logBytes: 100_000 });
    const second = await finishedRun({ daysAgo: 8, outputBytes: 100_000 });
    const ofSecond = await executionOf(second, 7.5, 100_000);
    await sql`UPDATE workflow_nodes SET execution_id = ${ofSecond} WHERE run_id = ${second} AND path = 'b'`;
    const third = await finished({ daysAgo: 7, logBytes: 100_000 });
    const fourth = await finishedRun({ daysAgo: 6, outputBytes: 100_000 });
    await tidy(FOREVER);
    expect(await storedBytes()).toBeGreaterThan(500_000);
    await tidy({ ...FOREVER, maxBytes: 250_000 });
    expect([await kept(), await keptRuns()]).toEqual([[third], [fourth]]);
    expect(await storedBytes()).toBeGreaterThan(200_000);
    await tidy({ ...FOREVER, maxBytes: 1 });
    expect([await kept(), await keptRuns(), await storedBytes()]).toEqual([[], [], 0]);
  });

  test('that end again are counted as far as they have grown', async () => {
    const id = await finishedRun({ daysAgo: 1, outputBytes: 10_000 });
    await tidy(FOREVER);
    const once = await storedBytes();
    await endRun(id, 15_000, 2);
    await tidy(FOREVER);
    expect((await storedBytes()) - once).toBeGreaterThanOrEqual(5_000);
    expect((await storedBytes()) - once).toBeLessThan(6_000);
  });

  test('of many nodes go in batches, and on where a batch was the last of its process', async () => {
    const id = await finishedRun({ daysAgo: 9 });
    await sql`INSERT INTO workflow_nodes (tenant_id, run_id, path, instance, revision)
      SELECT ${tenantId}, ${id}, 'm[' || n || ']', '{}', 1 FROM generate_series(1, 100) AS n`;
    await sql`INSERT INTO workflow_remains (tenant_id, run_id) VALUES (${tenantId}, ${id})`;
    await sql`DELETE FROM workflow_runs WHERE id = ${id}`;
    expect(await clearRemains(sql, 30)).toBe(true);
    expect(await remainsOf(id)).toEqual({ nodes: 72, lines: 0 });
    await tidy(FOREVER);
    expect(await remainsOf(id)).toEqual({ nodes: 0, lines: 0 });
    expect(await sql`SELECT run_id FROM workflow_remains`).toEqual([]);
  });
});

async function run({ daysAgo }: { daysAgo: number }): Promise<string> {
  const { row } = await insertWorkflowRun(sql, {
    ...{ id: idOf(daysAgo), tenantId, workflowId: randomUUID(), workflow: 'w', version: '1.0.0', pinned: {} },
    ...{ state: RunState.PENDING, inputJson: '{}', labels: undefined, idempotencyKey: undefined, replicaId },
  });
  return row.id;
}

async function finishedRun(given: { daysAgo: number; endedDaysAgo?: number; outputBytes?: number }): Promise<string> {
  const { daysAgo, endedDaysAgo = daysAgo, outputBytes = 10 } = given;
  const id = await run({ daysAgo });
  await endRun(id, outputBytes, 1);
  await sql`UPDATE workflow_runs SET end_time = now() - ${endedDaysAgo} * interval '1 day' WHERE id = ${id}`;
  return id;
}

/** As the runner stores it: two nodes, and three lines of the log. */
async function endRun(id: string, outputBytes: number, times: number): Promise<void> {
  await sql`UPDATE workflow_runs SET end_time = NULL WHERE id = ${id}`;
  const node = { instance: { state: 'SUCCEEDED' }, input_json: null, execution_id: null };
  const [stored] = await storeSteps(sql, [
    {
      ...{ run_id: id, tenant_id: tenantId, replica_id: replicaId, state: RunState.SUCCEEDED, root: {}, next_turn: 1 },
      ...{ revision: times, log_sequence: 3, output_json: null, start_time: null, heard: [] },
      end_time: new Date().toISOString(),
      nodes: [
        { ...node, path: 'a', output_json: 'x'.repeat(outputBytes) },
        { ...node, path: 'b', output_json: null },
      ],
      log: [1, 2, 3].map((sequence) => {
        return { sequence, time: new Date().toISOString(), level: 1, path: '', message: 'started' };
      }),
    },
  ]);
  expect(stored).toBe(true);
}

/** One that a node of a run has made. */
async function executionOf(runId: string, daysAgo: number, logBytes = 10): Promise<string> {
  return await finished({ daysAgo, logBytes, key: executionKey(runId, 'a', 1) });
}

async function keptRuns(): Promise<string[]> {
  const rows = await sql<{ id: string }[]>`SELECT id FROM workflow_runs WHERE tenant_id = ${tenantId} ORDER BY id`;
  return rows.map(({ id }) => id);
}

async function remainsOf(id: string): Promise<{ nodes: number; lines: number } | undefined> {
  const [row] = await sql<{ nodes: number; lines: number }[]>`
    SELECT (SELECT count(*)::int FROM workflow_nodes WHERE run_id = ${id}) AS nodes,
      (SELECT count(*)::int FROM workflow_log WHERE run_id = ${id}) AS lines`;
  return row;
}

async function tidy(settings: RetentionSettings): Promise<void> {
  const retention = new Retention({ sql, settings, runAlone: async () => false, logger: silent });
  await retention.runOnce();
  await retention.stop();
}

interface Finished {
  daysAgo: number;
  endedDaysAgo?: number;
  logBytes?: number;
  key?: string;
}

async function finished({ daysAgo, endedDaysAgo = daysAgo, logBytes = 10, key }: Finished): Promise<string> {
  const id = idOf(daysAgo);
  const place = { tenant_id: tenantId, agent_id: agentId, attempt: 1 };
  await insertExecution(sql, { id, ...place, state: State.ASSIGNED, idempotency_key: key ?? null });
  await storeLogChunks(sql, [
    { tenantId, executionId: id, attempt: 1, stream: Stream.STDOUT, offset: 0, data: Buffer.alloc(logBytes, 'x') },
  ]);
  await finishExecutions(sql, [finishedRow({ id, ...place, stdout_bytes: logBytes })]);
  await sql`UPDATE executions SET end_time = now() - ${endedDaysAgo} * interval '1 day' WHERE id = ${id}`;
  return id;
}

/** Firings of a schedule, by their times: two that started something, one that waits, all of long ago, and a young one. */
async function firings(name = 'each'): Promise<Record<'running' | 'queued' | 'young', number> & { id: string }> {
  const id = uuidv7();
  await sql`INSERT INTO schedules (id, tenant_id, name, definition, paused, anchor_time, decided_time, create_time, update_time)
    VALUES (${id}, ${tenantId}, ${name}, '', true, now(), now(), now(), now())`;
  const ended = await finished({ daysAgo: 9, endedDaysAgo: 1 });
  const place = { tenant_id: tenantId, agent_id: agentId, attempt: 1 };
  const active = await insertExecution(sql, { id: idOf(8), ...place, state: State.RUNNING });
  const times = { running: 2_000, queued: 3_000, young: 4_000 };
  const insert = async (time: number, state: number, daysAgo: number, executionId: string | null) => {
    await sql`INSERT INTO schedule_firings (tenant_id, schedule_id, time, due_time, state, execution_id, over, create_time)
      VALUES (${tenantId}, ${id}, ${new Date(time)}, ${new Date(time)}, ${state}, ${executionId}, false,
        now() - ${daysAgo} * interval '1 day')`;
  };
  await insert(1_000, FIRING.started, 8, ended);
  await insert(times.running, FIRING.started, 8, active);
  await insert(times.queued, FIRING.queued, 8, null);
  await insert(times.young, FIRING.skipped, 6, null);
  return { id, ...times };
}

/** An id as it would have been made then. */
function idOf(daysAgo: number): string {
  const hex = Math.floor(Date.now() - daysAgo * 86_400_000)
    .toString(16)
    .padStart(12, '0');
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
