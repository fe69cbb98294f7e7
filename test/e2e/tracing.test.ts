import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { create, execute, finished } from '../support/executions.ts';
import { http } from '../support/http.ts';
import { OtlpReceiver } from '../support/otlp-receiver.ts';
import { code, command, moduleCall } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';

const CALLER_SPAN = 'b7ad6b7169203331';
const TELL = 'import os\ndef handler(input):\n    return {"parent": os.environ.get("TRACEPARENT")}\n';
const WAIT = 'import time\ndef handler(input):\n    time.sleep(3600)\n';

/** A trace of its own for each test, and the header with which a caller is in it. */
let traces = 0;
function newTrace(): { id: string; header: string } {
  const id = (++traces).toString(16).padStart(32, 'a');
  return { id, header: `00-${id}-${CALLER_SPAN}-01` };
}

const receiver = await OtlpReceiver.start();
const env = receiver.variables;
const traced = await startStack({ controlPlane: { env }, agents: [{ slots: 1, env }] });
const untraced = await startStack();

function parentIn(outputJson: string): string {
  return (JSON.parse(outputJson) as { parent: string }).parent;
}

test('one trace leads from the caller through control plane and agent to the code', async () => {
  const { id, header } = newTrace();
  const { controlPlane } = traced;
  await traced.modules.createModule({ module: { name: 'tell', version: '1.0.0', code: TELL } });
  const answer = await http(`${controlPlane.url}/run/tell`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${controlPlane.adminKey}`,
      'content-type': 'application/json',
      traceparent: header,
    },
    body: '{}',
  });
  expect(answer.status, answer.text).toBe(200);
  const executionId = answer.headers['harrier-execution-id'];

  const call = await receiver.span(id, 'harrier.v1.ExecutionService/Execute');
  const attempt = await receiver.span(id, 'attempt');
  const run = await receiver.span(id, 'run');
  expect(call).toMatchObject({ service: 'harrier-control-plane', parentId: CALLER_SPAN, kind: 2, status: 0 });
  expect(call.attributes).toMatchObject({ 'rpc.method': 'Execute', 'harrier.execution.id': executionId });
  expect(attempt).toMatchObject({ service: 'harrier-agent', parentId: call.spanId, kind: 5, status: 0 });
  expect(attempt.attributes).toMatchObject({
    'harrier.execution.id': executionId,
    'harrier.attempt': 1,
    'harrier.task_class': 'cpu_short',
    'harrier.environment': 'inline',
    'harrier.outcome': 'succeeded',
  });
  expect(run).toMatchObject({ service: 'harrier-agent', parentId: attempt.spanId });
  expect(parentIn(answer.text), 'what the code is told').toBe(`00-${id}-${run.spanId}-01`);
  for (const [outer, inner] of [
    [call, attempt],
    [attempt, run],
  ] as const) {
    expect(outer.startNs <= inner.startNs && inner.endNs >= inner.startNs).toBe(true);
  }
  expect(
    receiver.spans.filter(({ traceId, name }) => traceId === id && name === 'queue'),
    'it did not wait',
  ).toEqual([]);
  expect(receiver.headers[0]).toMatchObject({ 'x-collector-key': 'k 1' });
});

test('what failed says so in its spans, and a refused call in its own', async () => {
  const failing = newTrace();
  const request = code('def handler(input):\n    raise ValueError("so")\n');
  await traced.executions.execute(request, { headers: { traceparent: failing.header } });
  const attempt = await receiver.span(failing.id, 'attempt');
  expect(attempt).toMatchObject({ status: 2, attributes: { 'harrier.outcome': 'failed' } });
  expect(await receiver.span(failing.id, 'harrier.v1.ExecutionService/Execute')).toMatchObject({ status: 0 });
  const refused = newTrace();
  const call = traced.executions.execute(moduleCall('not-there'), { headers: { traceparent: refused.header } });
  await expect(call).rejects.toThrow('not-there');
  expect(await receiver.span(refused.id, 'harrier.v1.ExecutionService/Execute')).toMatchObject({ status: 2 });
});

test('what a caller does not keep is not collected, and is handed on as such', async () => {
  const { id, header } = newTrace();
  const request = code(TELL);
  const { execution } = await traced.executions.execute(request, {
    headers: { traceparent: header.replace(/01$/, '00') },
  });
  expect(parentIn(execution?.outputJson ?? '')).toMatch(new RegExp(`^00-${id}-[0-9a-f]{16}-00$`));
  const after = newTrace();
  await traced.executions.execute(request, { headers: { traceparent: after.header } });
  await receiver.span(after.id, 'attempt');
  expect(receiver.spans.filter(({ traceId }) => traceId === id)).toEqual([]);
});

test('the place in the trace outlives the queue and a restart of the control plane', async () => {
  const { id, header } = newTrace();
  const holding = await create(traced.executions, code(WAIT));
  await until('the slot to be in use', async () => {
    const { execution } = await traced.executions.getExecution({ id: holding });
    return execution?.state === State.RUNNING;
  });
  const created = await traced.executions.createExecution(code(TELL), { headers: { traceparent: header } });
  const waiting = created.execution?.id ?? '';
  expect(created.execution?.state).toBe(State.PENDING);
  const call = await receiver.span(id, 'harrier.v1.ExecutionService/CreateExecution');
  await traced.controlPlane.stop();
  traced.controlPlane = await traced.controlPlane.restarted();
  await traced.executions.cancelExecution({ id: holding });
  const { outputJson } = await finished(traced.executions, waiting);
  const queue = await receiver.span(id, 'queue');
  const attempt = await receiver.span(id, 'attempt');
  const run = await receiver.span(id, 'run');
  expect(queue).toMatchObject({ service: 'harrier-control-plane', parentId: call.spanId });
  expect(queue.attributes).toMatchObject({ 'harrier.execution.id': waiting });
  expect(queue.endNs > queue.startNs).toBe(true);
  expect(attempt.parentId).toBe(call.spanId);
  expect(parentIn(outputJson)).toBe(`00-${id}-${run.spanId}-01`);
});

test('processes that trace nothing hand the caller’s place on, also that of the request', async () => {
  const { header } = newTrace();
  const other = newTrace();
  const headers = { traceparent: header };
  const run = async (
    request: Parameters<typeof untraced.executions.execute>[0],
    given?: { headers: Record<string, string> },
  ) => (await untraced.executions.execute(request, given)).execution;
  const nodejs = { source: 'export const handler = () => ({ parent: process.env.TRACEPARENT });', language: 'nodejs' };
  expect(parentIn((await run(code(TELL), { headers }))?.outputJson ?? '')).toBe(header);
  expect(
    parentIn((await run({ ...code(''), target: { case: 'code', value: nodejs } }, { headers }))?.outputJson ?? '{}'),
  ).toBe(header);
  expect((await run(command('printenv', 'TRACEPARENT'), { headers }))?.stdoutTail).toBe(`${header}\n`);
  expect(parentIn((await run({ ...code(TELL), traceParent: other.header }, { headers }))?.outputJson ?? '')).toBe(
    other.header,
  );
  expect(parentIn((await run({ ...code(TELL), env: { TRACEPARENT: 'own' } }, { headers }))?.outputJson ?? '')).toBe(
    'own',
  );
  expect(parentIn((await run(code(TELL), { headers: { traceparent: 'nonsense' } }))?.outputJson ?? '')).toBeNull();
  await expect(run({ ...code(TELL), traceParent: 'nonsense' })).rejects.toThrow('trace_parent');
});

test('a kept worker is told of each call’s own place, and of none where there is none', async () => {
  const module = { name: 'kept', version: '1.0.0', code: TELL, reuse: true };
  await untraced.modules.createModule({ module });
  const parents: (string | null)[] = [];
  const places = [newTrace().header, undefined, newTrace().header, undefined];
  for (const traceParent of places) {
    const request = { ...moduleCall('kept'), ...(traceParent === undefined ? {} : { traceParent }) };
    parents.push(parentIn((await execute(untraced.executions, request)).outputJson));
  }
  expect(parents).toEqual(places.map((place) => place ?? null));
});
