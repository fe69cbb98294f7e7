import { Execution_State as State } from '@harrier/shared/gen/execution';
import { afterAll, expect, test } from 'vitest';
import { connect } from '../../control-plane/src/db/connection.ts';
import { create, execute, finished, get, storedLog, untilPrinted } from '../support/executions.ts';
import { ExternalPostgres } from '../support/postgres.ts';
import { startStack } from '../support/stack.ts';
import { ticker, tickerText } from '../support/ticker.ts';
import { until } from '../support/wait.ts';

const postgres = await ExternalPostgres.start();
afterAll(() => postgres.stop());
const stack = await startStack({ controlPlane: { databaseUrl: postgres.url } });
const admin = connect({ url: postgres.url }, 1);
afterAll(() => admin.end());
const TICKS = { lines: 120, width: 20, pause: 0.05 };
/** For how long a cause is not logged again. */
const LOG_EVERY_MS = 30_000;
/** What a replica does every second or two and the server refuses: how that is logged, and that it is over. */
const LOOPS = new Map([
  ['the database was not told that this replica lives; trying again', 'the database hears of this replica again'],
  ['workflows could not be looked for; trying again', 'workflows go on again'],
  ['schedules could not be looked at; trying again', 'schedules are looked at again'],
]);

/** Whether the server takes writes: those of every connection that does not ask for them. */
async function takeWrites(takes: boolean): Promise<void> {
  await admin`SET default_transaction_read_only = off`;
  await admin.unsafe(`ALTER SYSTEM SET default_transaction_read_only = ${takes ? 'off' : 'on'}`);
  await admin`SELECT pg_reload_conf()`;
}

function logged(text: string) {
  return stack.controlPlane.program.logs.filter(({ msg }) => msg === text);
}

test('while PostgreSQL refuses writes that is told now and then, and what comes meanwhile is stored afterwards', async () => {
  const ids = await Promise.all(Array.from({ length: 6 }, () => create(stack.executions, ticker(TICKS))));
  for (const id of ids) await untilPrinted(stack.executions, id, 'line 5 ');
  const startMs = performance.now();
  await takeWrites(false);
  // Whoever watches sees what is not stored yet.
  for (const id of ids) await untilPrinted(stack.executions, id, `line ${TICKS.lines - 1} `);
  const refused = 'log bytes could not be stored; trying again';
  await until('the refusals to be logged', () => [refused, ...LOOPS.keys()].every((text) => logged(text).length > 0));
  await takeWrites(true);
  for (const id of ids) {
    expect(await finished(stack.executions, id)).toMatchObject({ state: State.SUCCEEDED, attempt: 1 });
    expect((await storedLog(stack.executions, id)).stdout.toString()).toBe(tickerText(TICKS));
  }
  expect(logged(refused)[0]).toMatchObject({
    level: 'error',
    reason: expect.stringContaining('read-only transaction'),
  });
  const most = 1 + (performance.now() - startMs) / LOG_EVERY_MS;
  expect(logged(refused).length).toBeLessThanOrEqual(most);
  expect(logged('the database has taken all that could not be stored').length).toBeGreaterThan(0);
  for (const [text, over] of LOOPS) {
    expect(logged(text).length).toBeLessThanOrEqual(most);
    await until(`"${over}" to be logged`, () => logged(over).length > 0);
  }
});

test('an end that PostgreSQL refuses in every form says why, holds up no other, and is stored once it is taken', async () => {
  const few = { lines: 20, pause: 0.05 };
  const id = await create(stack.executions, ticker(few));
  await admin.unsafe(`ALTER TABLE executions ADD CONSTRAINT kept CHECK (end_time IS NULL OR id <> '${id}')`);
  const refused = await until('the refusal to be told', async () => {
    const execution = await get(stack.executions, id);
    return execution.waitingReason === '' ? undefined : execution;
  });
  expect(refused.state).toBe(State.RUNNING);
  expect(refused.waitingReason).toContain('violates check constraint "kept"');
  const [line, ...more] = stack.controlPlane.program.logs.filter(({ constraint }) => constraint === 'kept');
  expect(more).toEqual([]);
  expect(line).toMatchObject({ level: 'error', executionId: id, attempt: 1, sqlState: '23514', table: 'executions' });
  expect(await execute(stack.executions, ticker({ lines: 1 }))).toMatchObject({ state: State.SUCCEEDED });

  await admin`ALTER TABLE executions DROP CONSTRAINT kept`;
  // It is tried every few minutes, and at once when the agent is linked anew to one that does not know it.
  await stack.controlPlane.kill();
  stack.controlPlane = await stack.controlPlane.restarted();
  expect(await finished(stack.executions, id)).toMatchObject({
    state: State.SUCCEEDED,
    attempt: 1,
    outputJson: '{"lines":20}',
  });
  expect((await storedLog(stack.executions, id)).stdout.toString()).toBe(tickerText(few));
});
