import { randomUUID } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { CreateExecutionRequestSchema, Execution_State as State } from '@harrier/shared/gen/execution';
import { BUILT_IN_CLASSES } from '@harrier/shared/task-classes-file';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { BEFORE_ALL_EVENTS, readEvents } from '../db/queries/events.ts';
import { startDatabase } from '../test-support/real-database.ts';
import { insertExecution } from '../test-support/stored-executions.ts';
import { resolveExecution } from './resolved-execution.ts';
import { StateWriter } from './state-writer.ts';
import { TrackedExecution } from './tracked-execution.ts';

const { control: sql } = await startDatabase();
const tenantId = randomUUID();
const agentId = randomUUID();
await sql`INSERT INTO tenants (id, name) VALUES (${tenantId}, 'tenant')`;

let lines: string[];
let writer: StateWriter;
beforeEach(() => {
  lines = [];
  writer = new StateWriter(sql, pino({}, { write: (line: string) => lines.push(line) }));
});
afterEach(async () => {
  writer.stop();
  await takeStates();
});

/** From now on no state is taken. */
const refuseStates = () =>
  sql.unsafe(`ALTER TABLE executions ADD CONSTRAINT refused CHECK (state <> ${State.RUNNING}) NOT VALID`);
const takeStates = () => sql`ALTER TABLE executions DROP CONSTRAINT IF EXISTS refused`;

/** An execution whose first attempt the agent has been told of. */
async function assigned(): Promise<TrackedExecution> {
  const id = await insertExecution(sql, {
    ...{ tenant_id: tenantId, state: State.ASSIGNED, attempt: 1, agent_id: agentId },
  });
  const target = { case: 'code', value: { source: 'def handler(input): ...' } } as const;
  const resolved = resolveExecution({
    ...{ id, tenantId, module: undefined, classes: BUILT_IN_CLASSES, inputJson: '{}', jsonText: false },
    request: create(CreateExecutionRequestSchema, { target }),
  });
  const now = new Date();
  const times = { createTime: now, queueTime: now, assignTime: now, startTime: undefined, endTime: undefined };
  const tracked = new TrackedExecution(resolved, times, 0);
  tracked.history.push({ state: State.ASSIGNED, attempt: 1, agentId });
  return tracked;
}

function start(tracked: TrackedExecution): void {
  tracked.move({ ...tracked.current, state: State.RUNNING });
  writer.add(tracked);
}

async function stored({ id }: TrackedExecution) {
  const [row] = await sql<{ state: number; start_time: Date | null }[]>`
    SELECT state, start_time FROM executions WHERE id = ${id}`;
  return row;
}

test('a start that the database did not take is stored once it takes it, with the time at which it was', async () => {
  await refuseStates();
  const tracked = await assigned();
  start(tracked);
  await vi.waitFor(() => expect(lines).toHaveLength(1));
  const [during] = await sql<{ now: Date }[]>`SELECT now()`;
  expect(await stored(tracked)).toEqual({ state: State.ASSIGNED, start_time: null });
  await takeStates();
  await vi.waitFor(async () => expect(await stored(tracked)).toMatchObject({ state: State.RUNNING }));
  expect((await stored(tracked))?.start_time?.getTime()).toBeLessThan(during?.now.getTime() ?? 0);
  const events = (await readEvents(sql, BEFORE_ALL_EVENTS, 100)).filter((event) => event.execution_id === tracked.id);
  expect(events.map(({ type }) => type)).toEqual(['execution.created', 'execution.started']);
});

test('a start that the database refuses keeps no other from being stored, whichever it stands among', async () => {
  const all = await Promise.all(Array.from({ length: 9 }, assigned));
  const [refused, ...others] = all as [TrackedExecution, ...TrackedExecution[]];
  await sql.unsafe(`ALTER TABLE executions
    ADD CONSTRAINT refused CHECK (state <> ${State.RUNNING} OR id <> '${refused.id}') NOT VALID`);
  for (const tracked of [...others.slice(4), refused, ...others.slice(0, 4)]) start(tracked);
  for (const tracked of others) {
    await vi.waitFor(async () => expect(await stored(tracked)).toMatchObject({ state: State.RUNNING }));
  }
  expect(await stored(refused)).toMatchObject({ state: State.ASSIGNED });
  const later = await assigned();
  start(later);
  await vi.waitFor(async () => expect(await stored(later)).toMatchObject({ state: State.RUNNING }));
  await takeStates();
  await vi.waitFor(async () => expect(await stored(refused)).toMatchObject({ state: State.RUNNING }));
});

test('a start is not stored any more of what was put back meanwhile, here or by another replica', async () => {
  await refuseStates();
  const [here, elsewhere, goesOn] = [await assigned(), await assigned(), await assigned()];
  for (const tracked of [here, elsewhere, goesOn]) start(tracked);
  await vi.waitFor(() => expect(lines).toHaveLength(1));
  here.move({ state: State.PENDING, attempt: 1, agentId: '' });
  await sql`UPDATE executions SET state = ${State.PENDING}, agent_id = NULL WHERE id IN ${sql([here.id, elsewhere.id])}`;
  await takeStates();
  await vi.waitFor(async () => expect(await stored(goesOn)).toMatchObject({ state: State.RUNNING }));
  expect(await stored(here)).toEqual({ state: State.PENDING, start_time: null });
  expect(await stored(elsewhere)).toEqual({ state: State.PENDING, start_time: null });
});
