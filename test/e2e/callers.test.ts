import { Code, ConnectError } from '@connectrpc/connect';
import { ExecutionService, Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import type { Protocol } from '../support/clients.ts';
import { create, execute, finished } from '../support/executions.ts';
import { code, command } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';

const stack = await startStack();
const { clients, executions } = stack;

const PROTOCOLS: Protocol[] = ['gRPC', 'gRPC-Web', 'Connect binary', 'Connect JSON'];
/** Ends by itself, long after a caller with a deadline of 200 ms has gone. */
const SLOW = code('import time\ndef handler(input):\n    time.sleep(1.5)\n    return {"slow": True}\n');
const SOON_MS = 200;

test('an idempotency key gives the first execution to everybody who sends it', async () => {
  const request = (n: number) => ({
    ...code('def handler(input):\n    return input\n', { n }),
    idempotencyKey: 'once',
  });
  const first = await execute(executions, request(1));
  expect(first).toMatchObject({ state: State.SUCCEEDED, outputJson: '{"n":1}' });
  expect(await execute(executions, request(2))).toMatchObject({ id: first.id, outputJson: '{"n":1}' });
  expect(await create(executions, request(3))).toBe(first.id);
  const other = await execute(executions, { ...request(4), idempotencyKey: 'another' });
  expect(other).toMatchObject({ outputJson: '{"n":4}' });
  expect(other.id).not.toBe(first.id);
});

test('one execution comes of many callers with one key at the same time', async () => {
  const calls = Array.from({ length: 40 }, (_, i) => {
    const client = clients.client(ExecutionService, PROTOCOLS[i % PROTOCOLS.length] ?? 'gRPC');
    const request = { ...command('sh', '-c', 'echo ran'), idempotencyKey: 'together', labels: { group: 'together' } };
    return execute(client, request);
  });
  const answers = await Promise.all(calls);
  expect(new Set(answers.map(({ id }) => id)).size).toBe(1);
  expect(new Set(answers.map(({ state, stdoutTail }) => `${state} ${stdoutTail}`))).toEqual(
    new Set([`${State.SUCCEEDED} ran\n`]),
  );
  const { executions: listed } = await executions.listExecutions({ labelSelector: 'group=together' });
  expect(listed).toHaveLength(1);
});

test.each(PROTOCOLS)('%s: a caller whose deadline passes is told so; the execution goes on', async (protocol) => {
  const client = clients.client(ExecutionService, protocol);
  const error = await client.execute(SLOW, { timeoutMs: SOON_MS }).then(
    () => expect.fail('it should have timed out'),
    (thrown: unknown) => ConnectError.from(thrown),
  );
  expect(error.code).toBe(Code.DeadlineExceeded);
  const { executions: listed } = await executions.listExecutions({ pageSize: 1 });
  const id = listed[0]?.id ?? '';
  expect(listed[0]?.state).not.toBe(State.CANCELLED);
  expect(await finished(executions, id)).toMatchObject({ state: State.SUCCEEDED, outputJson: '{"slow":true}' });
});

test('the deadline of a Connect call in curl: the error carries the id of the execution', async () => {
  const headers = { 'connect-timeout-ms': String(SOON_MS), 'connect-protocol-version': '1' };
  const { value } = SLOW.target;
  const answer = await clients.connectJson('ExecutionService/Execute', { code: value }, { headers });
  expect(answer.status).toBe(504);
  expect(answer.json).toMatchObject({ code: 'deadline_exceeded' });
  const id = String(answer.headers['harrier-execution-id']);
  expect(await finished(executions, id)).toMatchObject({ state: State.SUCCEEDED });
});

test.each(PROTOCOLS)('%s: a caller who goes away does not stop the execution', async (protocol) => {
  const client = clients.client(ExecutionService, protocol);
  const away = new AbortController();
  let id = '';
  try {
    for await (const { event } of client.executeStream(SLOW, { signal: away.signal })) {
      if (event.case !== 'state' || event.value.state !== State.RUNNING) continue;
      id = event.value.id;
      away.abort();
    }
    expect.fail('the stream should have been broken off');
  } catch (error) {
    expect(ConnectError.from(error).code).toBe(Code.Canceled);
  }
  expect(await finished(executions, id)).toMatchObject({ state: State.SUCCEEDED, outputJson: '{"slow":true}' });
});

test('REST: a caller who hangs up does not stop the execution', async () => {
  await stack.modules.createModule({ module: { name: 'slow', version: '1.0.0', code: SLOW.target.value.source } });
  const away = new AbortController();
  const call = clients.rest('POST', '/run/slow', {}, { signal: away.signal });
  const id = await firstOf('slow');
  away.abort();
  await expect(call).rejects.toThrow();
  expect(await finished(executions, id)).toMatchObject({ state: State.SUCCEEDED, outputJson: '{"slow":true}' });
});

async function firstOf(module: string): Promise<string> {
  return await until('the execution to be listed', async () => {
    const { executions: listed } = await executions.listExecutions({ module });
    return listed[0]?.id;
  });
}
