import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { create, execute, finished, get, storedLog, untilPrinted, untilState } from '../support/executions.ts';
import { processesWith } from '../support/processes.ts';
import { code, command, fixture, moduleCall } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';

const sleeper = (input: object = {}) => code(fixture('sleeper.py'), input);
const quick = code('def handler(input):\n    return {"done": True}\n');

const stack = await startStack({ agents: [] });
const { executions } = stack;

test('without an agent an execution waits, says why, and is cancelled at once', async () => {
  const caller = stack.executions.execute(sleeper());
  const waiting = await until('the execution to be listed', async () => {
    const { executions: listed } = await executions.listExecutions({ state: State.PENDING });
    return listed[0];
  });
  expect(await get(executions, waiting.id)).toMatchObject({
    state: State.PENDING,
    attempt: 0,
    waitingReason: 'no agent is linked',
  });
  const { execution } = await executions.cancelExecution({ id: waiting.id, reason: 'not needed any more' });
  const cancelled = { id: waiting.id, state: State.CANCELLED, attempt: 0 };
  const error = { code: Code.CANCELLED, message: 'not needed any more' };
  expect(execution).toMatchObject({ ...cancelled, error });
  expect((await caller).execution).toMatchObject({ ...cancelled, error });
  expect(await finished(executions, waiting.id)).toMatchObject({ ...cancelled, error });
});

test('what waits for an agent runs when one joins', async () => {
  const id = await create(executions, quick);
  await untilState(executions, id, State.PENDING);
  await stack.addAgent({ slots: 1 });
  expect(await finished(executions, id)).toMatchObject({
    state: State.SUCCEEDED,
    outputJson: '{"done":true}',
    attempt: 1,
  });
});

test('an execution that waits for a slot is cancelled without touching the one that runs; higher priority goes first', async () => {
  const running = await create(executions, sleeper());
  await untilPrinted(executions, running, 'running');
  const [low, cancelled, high] = [
    await create(executions, { ...quick, priority: -1 }),
    await create(executions, quick),
    await create(executions, { ...quick, priority: 5 }),
  ];
  expect(await get(executions, cancelled)).toMatchObject({
    state: State.PENDING,
    waitingReason: 'agent-1: all 1 slots are in use',
  });
  await executions.cancelExecution({ id: cancelled });
  expect(await finished(executions, cancelled)).toMatchObject({ state: State.CANCELLED, attempt: 0 });
  expect(await get(executions, running)).toMatchObject({ state: State.RUNNING });

  await executions.cancelExecution({ id: running });
  const [first, last] = [await finished(executions, high), await finished(executions, low)];
  expect([first.state, last.state]).toEqual([State.SUCCEEDED, State.SUCCEEDED]);
  const startOf = (execution: typeof first) =>
    Number(execution.startTime?.seconds) * 1e9 + (execution.startTime?.nanos ?? 0);
  expect(startOf(first)).toBeLessThan(startOf(last));
});

test('a running handler gets the chance to clean up', async () => {
  const id = await create(executions, sleeper());
  await untilPrinted(executions, id, 'running\n');
  const answer = await stack.clients.rest('POST', `/executions/${id}/cancel`, { reason: 'enough' });
  expect(answer.json).toMatchObject({ id });
  const execution = await finished(executions, id);
  expect(execution).toMatchObject({ state: State.CANCELLED, error: { code: Code.CANCELLED, message: 'enough' } });
  expect((await storedLog(executions, id)).stdout.toString()).toBe('running\ncleaned up\n');
});

test('a running command gets SIGTERM and may end by itself', async () => {
  const id = await create(
    executions,
    command('sh', '-c', 'trap "echo bye; exit 3" TERM; echo running; while :; do sleep 0.05; done'),
  );
  await untilPrinted(executions, id, 'running');
  await executions.cancelExecution({ id });
  expect(await finished(executions, id)).toMatchObject({ state: State.CANCELLED, error: { code: Code.CANCELLED } });
  expect((await storedLog(executions, id)).stdout.toString()).toBe('running\nbye\n');
});

test('a handler that ignores SIGTERM is killed, with everything that it has started', async () => {
  const child = '987654.25';
  const id = await create(executions, sleeper({ stubborn: true, child }));
  await untilPrinted(executions, id, 'running');
  await until('the child of the handler to run', () => processesWith(`sleep ${child}`).length > 0);
  await executions.cancelExecution({ id });
  await until('the request to be seen', async () => (await get(executions, id)).cancelRequested);
  expect(await finished(executions, id)).toMatchObject({ state: State.CANCELLED, error: { code: Code.CANCELLED } });
  expect(processesWith(`sleep ${child}`)).toEqual([]);
});

test('a cancel of what is over changes nothing', async () => {
  const { id, state, outputJson, endTime } = await execute(executions, quick);
  const { execution } = await executions.cancelExecution({ id, reason: 'too late' });
  expect(execution).toMatchObject({ id, state, outputJson, endTime });
  expect(execution).not.toHaveProperty('error');
  expect(execution?.cancelRequested).toBe(false);
});

test('a handler that takes too long is stopped, may clean up, and is not tried again', async () => {
  const execution = await execute(executions, { ...sleeper(), timeout: { nanos: 300_000_000 } });
  expect(execution).toMatchObject({ state: State.TIMED_OUT, attempt: 1, error: { code: Code.TIMEOUT } });
  expect(execution.stdoutTail).toBe('running\ncleaned up\n');
});

test('a handler that takes too long and ignores SIGTERM is killed', async () => {
  const child = '987655.25';
  const execution = await execute(executions, {
    ...sleeper({ stubborn: true, child }),
    timeout: { nanos: 300_000_000 },
  });
  expect(execution).toMatchObject({ state: State.TIMED_OUT, error: { code: Code.TIMEOUT } });
  expect(processesWith(`sleep ${child}`)).toEqual([]);
});

test('the timeout of a module holds where the request has none, over REST as 504', async () => {
  const module = { name: 'sleeper', version: '1.0.0', code: fixture('sleeper.py'), timeout: { nanos: 200_000_000 } };
  await stack.modules.createModule({ module });
  const answer = await stack.clients.rest('POST', '/run/sleeper', {});
  expect(answer.status).toBe(504);
  expect(answer.json).toMatchObject({ code: 'TIMEOUT' });
  const id = String(answer.headers['harrier-execution-id']);
  expect(await get(executions, id)).toMatchObject({ state: State.TIMED_OUT, module: 'sleeper' });
  expect(await execute(executions, { ...moduleCall('sleeper'), timeout: { nanos: 100_000_000 } })).toMatchObject({
    state: State.TIMED_OUT,
    error: { message: expect.stringContaining('100 ms') },
  });
});

test('nothing of all that is left on the agent', async () => {
  const agent = stack.agents[0];
  await until('the agent to be idle', async () => {
    const { agents } = await stack.clients.agents.listAgents({});
    return agents[0]?.activeExecutions === 0;
  });
  expect(agent?.launcherProcesses().filter(({ command }) => command.startsWith('sleep'))).toEqual([]);
  expect(await execute(executions, quick)).toMatchObject({ state: State.SUCCEEDED });
});
