import { randomUUID } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { create, toBinary } from '@bufbuild/protobuf';
import { createLogger } from '@harrier/shared';
import { ScheduleSchema } from '@harrier/shared/gen/schedule';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FIRING } from '../db/queries/schedule-firings.ts';
import { uuidv7 } from '../db/uuid.ts';
import { isFinalRefusal } from '../service/final-refusal.ts';
import { startDatabase } from '../test-support/real-database.ts';
import { type Firing, ScheduleRunner, type Targets } from './schedule-runner.ts';

const { cold: sql } = await startDatabase();
const [first, second] = [randomUUID(), randomUUID()].toSorted() as [string, string];
let runner: ScheduleRunner | undefined;

beforeEach(async () => {
  await sql`TRUNCATE schedules, schedule_firings, events`;
});
afterEach(() => runner?.stop());

/** Runs schedules of which a test starts and stops things. */
function run(targets: Partial<Targets>): void {
  runner = new ScheduleRunner({
    sql,
    targets: {
      start: () => Promise.resolve({ executionId: undefined, runId: randomUUID() }),
      cancel: () => Promise.resolve(),
      isFinalRefusal,
      ...targets,
    },
    onFiring: () => undefined,
    logger: createLogger({ name: 'test', level: 'silent' }),
  });
  runner.start();
}

/** Stores a schedule that comes each hour, and once now when it is due. @returns its id */
async function store(tenantId: string, name: string, { isDue = false, timeZone = 'UTC' } = {}): Promise<string> {
  const id = uuidv7();
  const times = { case: 'cron', value: { expression: '0 * * * *', timeZone } } as const;
  const definition = toBinary(ScheduleSchema, create(ScheduleSchema, { name, times }));
  const dueTime = isDue ? sql`now()` : sql`now() + interval '1 hour'`;
  await sql`
    INSERT INTO schedules (id, tenant_id, name, definition, paused, anchor_time, decided_time, next_due_time, create_time,
      update_time)
    VALUES (${id}, ${tenantId}, ${name}, ${definition}, false, now(), now() - interval '2 hours', ${dueTime}, now(), now())`;
  return id;
}

/** Stores firings of a schedule, at so many seconds before now. */
async function fire(tenantId: string, scheduleId: string, state: keyof typeof FIRING, count: number): Promise<void> {
  await sql`
    INSERT INTO schedule_firings (tenant_id, schedule_id, time, due_time, state, try_time, over, cancel, run_id)
    SELECT ${tenantId}, ${scheduleId}, time, time, ${FIRING[state]}, ${state === 'pending' ? sql`time` : null}, false,
      ${state === 'started'}, ${state === 'started' ? randomUUID() : null}
    FROM generate_series(1, ${count}) AS i, LATERAL (SELECT date_trunc('second', now()) - i * interval '1 s' AS time) AS t`;
}

test('what one tenant has to be started, however much, keeps nothing of another one waiting', async () => {
  await fire(first, await store(first, 'much'), 'pending', 320);
  const order: string[] = [];
  const all = Promise.withResolvers<void>();
  run({
    start: async ({ name }: Firing) => {
      // Comes while the first ones are being started.
      if (order.push(name) === 1) await store(second, 'little', { isDue: true });
      if (order.length > 320 && order.includes('little')) all.resolve();
      return { executionId: undefined, runId: randomUUID() };
    },
  });
  await all.promise;
  // In the next round, or the one after when the decision has just been made.
  expect(order.indexOf('little')).toBeLessThan(100);
});

test('schedules that are broken keep neither the others nor the database busy', async () => {
  for (let i = 0; i < 45; i++)
    await fire(first, await store(first, `broken${i}`, { timeZone: 'Mars/Olympus' }), 'queued', 1);
  await store(second, 'fine', { isDue: true });
  const waits = await store(second, 'waits');
  await fire(second, waits, 'queued', 1);
  const started = new Set<string>();
  const all = Promise.withResolvers<void>();
  run({
    start: ({ name }) => {
      started.add(name);
      if (started.size === 2) all.resolve();
      return Promise.resolve({ executionId: undefined, runId: randomUUID() });
    },
  });
  await all.promise;
  expect([...started].toSorted()).toEqual(['fine', 'waits']);
});

test('what cannot be cancelled keeps nothing else from being cancelled', async () => {
  await fire(first, await store(first, 'stuck'), 'started', 40);
  await fire(second, await store(second, 'fine'), 'started', 3);
  let cancelled = 0;
  const all = Promise.withResolvers<void>();
  run({
    cancel: (tenantId) => {
      if (tenantId === first) return Promise.reject(new Error('not now'));
      if (++cancelled === 3) all.resolve();
      return Promise.resolve();
    },
  });
  await all.promise;
});

test('there is a rest between two looks, however often it is woken', async () => {
  await fire(first, await store(first, 'stuck'), 'started', 1);
  let looks = 0;
  const startMs = performance.now();
  run({
    cancel: () => {
      looks++;
      return Promise.reject(new Error('not now'));
    },
  });
  while (looks < 5) {
    runner?.wake();
    await setImmediate();
  }
  expect(performance.now() - startMs).toBeGreaterThan(4 * 99);
});
