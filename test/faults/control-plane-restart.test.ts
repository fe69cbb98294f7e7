import { Code, ConnectError } from '@connectrpc/connect';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { ControlPlane } from '../support/control-plane.ts';
import { create, execute, finished, get, storedLog, untilPrinted } from '../support/executions.ts';
import { openHttp, readAll } from '../support/http.ts';
import { runProgram } from '../support/program.ts';
import { code } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { ticker, tickerText } from '../support/ticker.ts';
import { until } from '../support/wait.ts';

const stack = await startStack();
const quick = code('def handler(input):\n    return {"done": True}\n');
const TICKS = { lines: 150, width: 40, pause: 0.02 };

test('kill -9 of the control plane in the middle of a run: the execution ends right, with its whole log', async () => {
  await stack.modules.createModule({ module: { name: 'kept', version: '1.0.0', code: quick.target.value.source } });
  const before = await execute(stack.executions, quick);
  const id = await create(stack.executions, ticker(TICKS));
  await untilPrinted(stack.executions, id, 'line 10 ');
  await stack.controlPlane.kill();
  stack.controlPlane = await stack.controlPlane.restarted();
  const execution = await finished(stack.executions, id);
  expect(execution).toMatchObject({ state: State.SUCCEEDED, attempt: 1, outputJson: '{"lines":150}' });
  expect((await storedLog(stack.executions, id)).stdout.toString()).toBe(tickerText(TICKS));
  expect(await get(stack.executions, before.id)).toMatchObject({
    state: State.SUCCEEDED,
    outputJson: before.outputJson,
  });
  expect((await stack.modules.getModule({ name: 'kept' })).module).toMatchObject({ version: '1.0.0' });
});

test('what waited before kill -9 runs after the restart, and the key of the administrator still works', async () => {
  const { adminKey } = stack.controlPlane;
  const selector = { ...quick, agentSelector: 'later=yes' };
  const id = await create(stack.executions, selector);
  await stack.controlPlane.kill();
  stack.controlPlane = await stack.controlPlane.restarted();
  expect(stack.controlPlane.adminKey).toBe(adminKey);
  expect(await get(stack.executions, id)).toMatchObject({ state: State.PENDING });
  await stack.addAgent({ name: 'later', labels: { later: 'yes' } });
  expect(await finished(stack.executions, id)).toMatchObject({ state: State.SUCCEEDED });
});

test('a graceful stop answers the call that is in flight, and breaks off followers with a reason', async () => {
  const { controlPlane } = stack;
  const slow = code('import time\ndef handler(input):\n    time.sleep(1)\n    return {"slow": True}\n');
  const call = execute(stack.executions, { ...slow, labels: { call: 'inflight' } }).then(
    ({ outputJson }) => outputJson,
    (error: unknown) => ConnectError.from(error).code,
  );
  const id = await until('the call to be seen', async () => {
    const { executions } = await stack.executions.listExecutions({ labelSelector: 'call=inflight' });
    return executions[0]?.state === State.RUNNING && executions[0].id;
  });
  const follower = openHttp(`${controlPlane.url}/executions/${id}/logs?follow=true`, {
    headers: stack.clients.headers(),
  }).then(readAll);
  const settled = Promise.allSettled([follower]);
  controlPlane.program.signal('SIGTERM');
  // Either its result, when that came within the grace, or a code that says: try again.
  expect(['{"slow":true}', Code.Unavailable]).toContain(await call);
  expect(await controlPlane.program.exited).toEqual({ code: 0, signal: null });
  await settled;
  expect(controlPlane.program.logs.filter(({ level }) => level === 'error' || level === 'fatal')).toEqual([]);
  controlPlane.disconnect();
  stack.controlPlane = await controlPlane.restarted();
  expect(await finished(stack.executions, id)).toMatchObject({ state: State.SUCCEEDED, outputJson: '{"slow":true}' });
});

test('a second control plane on the same data directory stops with a clear message and disturbs nothing', async () => {
  const { dataDirectory } = stack.controlPlane;
  const second = ControlPlane.start({ dataDirectory });
  await expect(second).rejects.toThrow(`the data directory ${dataDirectory} is in use by another control-plane`);
  expect(await execute(stack.executions, quick)).toMatchObject({ state: State.SUCCEEDED });
});

test('settings that are wrong are all told at once, with their names', async () => {
  const { REPOSITORY, environment } = await import('../support/workspace.ts');
  const env = environment({
    HARRIER_LISTEN: 'nowhere',
    HARRIER_LOG_LEVEL: 'loud',
    HARRIER_TLS_CERT_FILE: '/x',
    HARRIER_DATABASE_URL: 'mysql://x',
  });
  const { code: exitCode, stderr } = await runProgram({
    argv: [process.execPath, 'control-plane/src/main.ts'],
    env,
    cwd: REPOSITORY,
  });
  expect(exitCode).toBe(78);
  for (const name of ['HARRIER_LISTEN', 'HARRIER_LOG_LEVEL', 'HARRIER_TLS_KEY_FILE', 'HARRIER_DATABASE_URL']) {
    expect(stderr).toContain(name);
  }
});
