import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import { startDatabase } from '../../test-support/real-database.ts';
import { uuidv7 } from '../uuid.ts';
import {
  claimFirings,
  decideSchedules,
  FIRING,
  listFiringsToCancel,
  nextFiring,
  putOffFiring,
} from './schedule-firings.ts';
import { changeSchedule, deleteSchedule, insertSchedule, listSchedules, readSchedule } from './schedules.ts';

const { cold: sql } = await startDatabase();
const tenantId = randomUUID();

test('a replica decides about a schedule as the one before it has left it', async () => {
  const epoch = new Date('2026-01-01T00:00:00Z');
  for (let i = 0; i < 3; i++) {
    await sql`
      INSERT INTO schedules (id, tenant_id, name, definition, paused, anchor_time, decided_time, next_due_time, create_time,
        update_time)
      VALUES (${uuidv7()}, ${tenantId}, ${`s${i}`}, ${new Uint8Array()}, false, ${epoch}, ${epoch}, ${epoch}, now(), now())`;
  }
  // Always due: each decision is about the second after the one before, and one second cannot be decided twice.
  let decisions = 0;
  const replica = async () => {
    for (let i = 0; i < 150; i++) {
      await decideSchedules(sql, { limit: 2, broken: [] }, ({ decided_time }) => {
        decisions++;
        const timeMs = decided_time.getTime() + 1_000;
        return {
          decidedTime: new Date(timeMs),
          nextDueTime: epoch,
          firings: [{ timeMs, dueMs: timeMs, state: FIRING.skipped, sinceMs: null, message: null }],
          ...{ start: [], drop: [], cancel: [] },
        };
      });
    }
  };
  await Promise.all(Array.from({ length: 4 }, replica));
  const [row] = await sql<{ firings: number; seconds: number }[]>`
    SELECT (SELECT count(*) FROM schedule_firings)::int AS firings,
      sum(extract(epoch FROM decided_time - ${epoch}::timestamptz))::int AS seconds FROM schedules`;
  expect(row).toEqual({ firings: decisions, seconds: decisions });
});

test('what is to be started is not while its schedule is paused, and is when it goes on', async () => {
  const id = uuidv7();
  await sql`
    INSERT INTO schedules (id, tenant_id, name, definition, paused, anchor_time, decided_time, create_time, update_time)
    VALUES (${id}, ${tenantId}, 'paused', ${new Uint8Array()}, false, now(), now(), now(), now())`;
  await sql`
    INSERT INTO schedule_firings (tenant_id, schedule_id, time, due_time, state, try_time, over)
    VALUES (${tenantId}, ${id}, now(), now(), ${FIRING.pending}, now(), false)`;
  const change = async (paused: boolean) => {
    await changeSchedule(sql, { tenantId, name: 'paused' }, (row) => ({
      ...{ definition: row.definition, paused, event: paused ? 'schedule.paused' : 'schedule.resumed' },
      ...{ anchorTime: row.anchor_time, decidedTime: row.decided_time, nextDueTime: undefined, updateTime: new Date() },
    }));
  };
  const claim = () => claimFirings(sql, { limit: 9, ofTenant: 9, againMs: 0 });
  const [claimed] = await claim();
  await change(true);
  expect(await claim()).toEqual([]);
  // Somebody had taken it before the pause, and was refused.
  if (claimed !== undefined) await putOffFiring(sql, claimed, { message: 'full', againMs: 0, maxAgainMs: 0 });
  expect(await claim()).toEqual([]);
  await change(false);
  expect(await claim()).toEqual([claimed]);
});

test('of a schedule that is deleted nothing is started or cancelled, and its name is free at once', async () => {
  const other = randomUUID();
  const content = {
    ...{ definition: new Uint8Array(), paused: false, anchorTime: new Date(), decidedTime: new Date() },
    ...{ nextDueTime: new Date(0), updateTime: new Date() },
  };
  const given = { ...content, tenantId: other, name: 'gone', maxOfTenant: 1 };
  const id = uuidv7();
  await insertSchedule(sql, { ...given, id });
  for (const [second, state] of [FIRING.pending, FIRING.queued, FIRING.started].entries()) {
    await sql`
      INSERT INTO schedule_firings (tenant_id, schedule_id, time, due_time, state, try_time, over, cancel)
      VALUES (${other}, ${id}, ${new Date(second * 1_000)}, now(), ${state},
        ${state === FIRING.pending ? sql`now()` : null}, false, ${state === FIRING.started})`;
  }
  expect(await listFiringsToCancel(sql, 9)).toHaveLength(1);
  expect(await deleteSchedule(sql, other, 'gone')).toBe(true);
  expect(await deleteSchedule(sql, other, 'gone')).toBe(false);
  const claimed = await claimFirings(sql, { limit: 9, ofTenant: 9, againMs: 0 });
  expect(claimed.filter(({ tenant_id }) => tenant_id === other)).toEqual([]);
  const decideAll = async () => {
    const decided: string[] = [];
    await decideSchedules(sql, { limit: 9, broken: [] }, ({ id: due, decided_time: decidedTime }) => {
      decided.push(due);
      return { decidedTime, nextDueTime: undefined, firings: [], start: [], drop: [], cancel: [] };
    });
    return decided;
  };
  expect(await decideAll()).not.toContain(id);
  expect(await listFiringsToCancel(sql, 9)).toEqual([]);
  expect((await nextFiring(sql)).waiting).toBe(false);
  expect(await readSchedule(sql, other, 'gone')).toBeUndefined();
  // A replica that knows nothing of the mark finds no such name; and if it did, nothing would come of it.
  expect(await sql`SELECT name FROM schedules WHERE tenant_id = ${other}`).toEqual([{ name: `deleted ${id}` }]);
  await sql`DELETE FROM schedule_firings WHERE schedule_id = ${id} AND state = ${FIRING.pending}`;
  for (const nextDueTime of [null, content.nextDueTime]) {
    await sql`UPDATE schedules SET paused = false, next_due_time = ${nextDueTime} WHERE id = ${id}`;
    expect(await decideAll()).not.toContain(id);
    const { inMs = 0, waiting } = await nextFiring(sql);
    expect(waiting).toBe(false);
    // Not in 1970.
    expect(inMs).toBeGreaterThan(-Date.now() / 2);
  }
  const again = await insertSchedule(sql, { ...given, id: uuidv7() });
  const listed = await listSchedules(sql, { tenantId: other, limit: 9, after: undefined, namePrefix: undefined });
  expect(listed).toEqual([again]);
});
