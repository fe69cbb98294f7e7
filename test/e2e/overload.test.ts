import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Code, type ConnectError } from '@connectrpc/connect';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { RetryInfoSchema } from '@harrier/shared/gen/google/rpc/error_details';
import { afterAll, expect, onTestFinished, test } from 'vitest';
import { create, finished } from '../support/executions.ts';
import { code } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';

const MAX_QUEUED = 3;
const MAX_WATCHERS = 2;
const folder = mkdtempSync(join(tmpdir(), 'harrier-overload-'));
afterAll(() => rmSync(folder, { recursive: true }));
const eventsFile = join(folder, 'events.jsonl');
const stack = await startStack({
  controlPlane: {
    env: {
      HARRIER_MAX_QUEUED: String(MAX_QUEUED),
      HARRIER_MAX_WATCHERS: String(MAX_WATCHERS),
      HARRIER_EVENTS_FILE: eventsFile,
    },
  },
});
const { executions, controlPlane } = stack;
const quick = code('def handler(input):\n    return {"done": True}\n');

test('a full queue refuses at once, says when to come again, and what was taken is done', async () => {
  const ids = [];
  for (let i = 0; i < MAX_QUEUED; i++) ids.push(await create(executions, { ...quick, agentSelector: 'late' }));
  const refusal = await executions
    .createExecution({ ...quick, agentSelector: 'late' })
    .catch((error: unknown) => error);
  expect(refusal).toMatchObject({
    code: Code.ResourceExhausted,
    rawMessage: `${MAX_QUEUED} executions wait for an agent already; try again later`,
  });
  expect((refusal as ConnectError).findDetails(RetryInfoSchema)[0]?.retryDelay?.seconds).toBe(2n);
  const rest = await fetch(`${controlPlane.url}/executions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${controlPlane.adminKey}`, 'content-type': 'application/json' },
    body: '{"code":{"source":"def handler(input): return {}"},"agentSelector":"late"}',
  });
  expect([rest.status, rest.headers.get('retry-after')]).toEqual([429, '2']);
  await stack.addAgent({ labels: { late: 'yes' } });
  for (const id of ids) expect(await finished(executions, id)).toMatchObject({ state: State.SUCCEEDED });
  const metrics = await (await fetch(controlPlane.metricsUrl)).text();
  expect(metrics).toContain('harrier_executions_refused_total{reason="queue"} 2');
});

test('readers that follow are bounded, and one more is refused before anything is begun for it', async () => {
  const id = await create(executions, code('import time\ndef handler(input):\n    time.sleep(600)\n'));
  const [leaving, staying] = [new AbortController(), new AbortController()];
  onTestFinished(() => staying.abort());
  const follow = async ({ signal } = staying) => {
    const events = executions.watchExecution({ id }, { signal })[Symbol.asyncIterator]();
    // It follows when it was told something.
    await events.next();
    return events;
  };
  const first = await follow(leaving);
  for (let count = 1; count < MAX_WATCHERS; count++) await follow();
  const refusal = { code: Code.ResourceExhausted, rawMessage: expect.stringContaining('readers follow executions') };
  await expect(follow()).rejects.toMatchObject(refusal);
  await expect(executions.readLogs({ id, follow: true })[Symbol.asyncIterator]().next()).rejects.toMatchObject(refusal);
  const before = (await executions.listExecutions({})).executions.length;
  const begun = executions.executeStream(quick)[Symbol.asyncIterator]().next();
  await expect(begun).rejects.toMatchObject(refusal);
  expect((await executions.listExecutions({})).executions).toHaveLength(before);
  // Who only reads what there is waits for nobody.
  for await (const chunk of executions.readLogs({ id })) expect(chunk).toBeUndefined();
  leaving.abort();
  await expect(first.next()).rejects.toMatchObject({ code: Code.Canceled });
  await executions.cancelExecution({ id });
  const ended = () => finished(executions, id).catch(() => undefined);
  expect(await until('a place to be free', ended)).toMatchObject({ state: State.CANCELLED });
  const metrics = await (await fetch(controlPlane.metricsUrl)).text();
  expect(metrics).toMatch(/harrier_executions_refused_total\{reason="watchers"\} \d/);
});

test('the file of events tells every change, over a restart of the control plane', async () => {
  const id = await create(executions, quick);
  await finished(executions, id);
  await controlPlane.stop();
  stack.controlPlane = await controlPlane.restarted();
  await stack.controlPlane.untilOnline(1);
  const later = await create(stack.executions, quick);
  await finished(stack.executions, later);
  const told = await until('the file to have the last end', () => {
    const events = readFileSync(eventsFile, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    return events.some((event) => event.execution === later && event.state === 'SUCCEEDED') ? events : undefined;
  });
  for (const execution of [id, later]) {
    const types = told.filter((event) => event.execution === execution).map(({ type }) => type);
    // Only one that waited for its agent is told as assigned.
    expect(types.filter((type) => type !== 'execution.assigned')).toEqual([
      'execution.created',
      'execution.started',
      'execution.finished',
    ]);
  }
  expect(new Set(told.map(({ position }) => position)).size).toBe(told.length);
});
