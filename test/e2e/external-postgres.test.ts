import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { afterAll, expect, test } from 'vitest';
import { connect } from '../../control-plane/src/db/connection.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { create, execute, finished, get, storedLog, untilPrinted, untilState } from '../support/executions.ts';
import { ExternalPostgres } from '../support/postgres.ts';
import { code, fixture, moduleCall } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { ticker, tickerText } from '../support/ticker.ts';
import { writtenBytes } from '../support/written.ts';

const postgres = await ExternalPostgres.start();
afterAll(() => postgres.stop());
const stack = await startStack({ controlPlane: { databaseUrl: postgres.url } });
const TICKS = { lines: 100, width: 10 };

test('on an external PostgreSQL the same things work: modules, executions, logs, lists', async () => {
  expect(existsSync(join(stack.controlPlane.dataDirectory, 'postgres'))).toBe(false);
  await stack.modules.createModule({ module: { name: 'writer', version: '1.0.0', code: fixture('writer.py') } });
  const input = { seed: 3, stdout: 200_000, stderr: 100_000 };
  const calls = Array.from({ length: 30 }, () => execute(stack.executions, moduleCall('writer', input)));
  for (const { id, state, outputJson } of await Promise.all(calls)) {
    expect({ state, outputJson }).toEqual({ state: State.SUCCEEDED, outputJson: JSON.stringify(input) });
    const { stdout, stderr } = await storedLog(stack.executions, id);
    expect(stdout.equals(writtenBytes(input, 'stdout')) && stderr.equals(writtenBytes(input, 'stderr'))).toBe(true);
  }
  const { executions } = await stack.executions.listExecutions({ module: 'writer', pageSize: 100 });
  expect(executions).toHaveLength(30);
});

test('a control plane that is killed finds everything again in the database, from another data directory too', async () => {
  const id = await create(stack.executions, ticker(TICKS));
  await untilPrinted(stack.executions, id, 'line 5 ');
  await stack.controlPlane.kill();
  const { port } = stack.controlPlane;
  stack.controlPlane = await ControlPlane.start({ databaseUrl: postgres.url, port });
  expect(await finished(stack.executions, id)).toMatchObject({ state: State.SUCCEEDED, attempt: 1 });
  expect((await storedLog(stack.executions, id)).stdout.toString()).toBe(tickerText(TICKS));
});

test('two control planes on one database: what one accepts the other shows, and cancels', async () => {
  const second = await ControlPlane.start({ databaseUrl: postgres.url });
  try {
    const done = await execute(stack.executions, code('def handler(input):\n    return {"n": 1}\n'));
    expect(await get(second.clients.executions, done.id)).toMatchObject({ outputJson: '{"n":1}' });
    const waiting = await create(second.clients.executions, { ...code('x'), agentSelector: 'none=here' });
    await stack.executions.cancelExecution({ id: waiting });
    await untilState(second.clients.executions, waiting, State.CANCELLED);
    // The agent is linked to the first; what the second accepts is run all the same.
    const printing = code('def handler(input):\n    print("ran")\n    return {"n": 2}\n');
    const elsewhere = await create(second.clients.executions, printing);
    expect(await untilState(second.clients.executions, elsewhere, State.SUCCEEDED)).toMatchObject({
      outputJson: '{"n":2}',
      stdoutTail: 'ran\n',
    });
  } finally {
    await second.stop();
  }
});

test('two control planes on one database: who waits or watches at the one hears of what the other runs, and cancels', async () => {
  const second = await ControlPlane.start({ databaseUrl: postgres.url });
  try {
    const at = second.clients.executions;
    // It waits at the second, which has no agent, and is claimed, run and ended by the first.
    expect(await execute(at, code('def handler(input):\n    return {"n": 3}\n'))).toMatchObject({
      state: State.SUCCEEDED,
      outputJson: '{"n":3}',
    });
    const states: State[] = [];
    let printed = '';
    let result: State | undefined;
    for await (const { event } of at.executeStream(code('def handler(input):\n    print("ran")\n    return {}\n'))) {
      if (event.case === 'state') states.push(event.value.state);
      if (event.case === 'log') printed += Buffer.from(event.value.data).toString();
      if (event.case === 'result') result = event.value.state;
    }
    expect({ first: states[0], printed, result }).toEqual({
      first: State.PENDING,
      printed: 'ran\n',
      result: State.SUCCEEDED,
    });
    const id = await create(at, { ...code('x'), agentSelector: 'none=here' });
    const cancelled = finished(at, id);
    await stack.executions.cancelExecution({ id });
    expect(await cancelled).toMatchObject({ state: State.CANCELLED });
  } finally {
    await second.stop();
  }
});

test('a database is reached through its unix socket too, by the migrations as well', async () => {
  const { socketDirectory: host, port } = postgres;
  const url = `postgres://harrier@/by_socket?host=${host}&port=${port}`;
  const admin = connect({ url: postgres.url }, 1);
  try {
    await admin`CREATE DATABASE by_socket`;
    const authority = `${encodeURIComponent(host)}:${port}`;
    for (const databaseUrl of [url, `postgres://harrier@${authority}/by_socket`]) {
      const controlPlane = await ControlPlane.start({ databaseUrl });
      try {
        expect((await controlPlane.clients.executions.listExecutions({})).executions).toEqual([]);
      } finally {
        await controlPlane.stop();
      }
    }
  } finally {
    await admin.end();
  }
});

test('a database that cannot be reached stops the start with a message', async () => {
  const start = ControlPlane.start({ databaseUrl: 'postgres://nobody@127.0.0.1:9/none' });
  await expect(start).rejects.toThrow('the database cannot be reached');
});
