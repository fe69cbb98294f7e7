import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { create, execute, finished, get, storedLog, untilPrinted } from '../support/executions.ts';
import { code } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { ticker, tickerText } from '../support/ticker.ts';
import { until } from '../support/wait.ts';

const stack = await startStack();
const { executions } = stack;
const [agent] = stack.agents;
if (agent === undefined) throw new Error('there is no agent');
const quick = code('def handler(input):\n    return {"done": True}\n');
const TICKS = { lines: 100, width: 40, pause: 0.02 };

test('an agent that is restarted between executions keeps its identity and goes on', async () => {
  const id = await stack.idOf('agent-1');
  const before = await execute(executions, quick);
  expect(await agent.stop()).toEqual({ code: 0, signal: null });
  await stack.untilOffline('agent-1');
  const waiting = await create(executions, quick);
  expect(await get(executions, waiting)).toMatchObject({ state: State.PENDING });
  agent.startAgain();
  expect(await stack.untilOnline('agent-1')).toBe(id);
  expect(await finished(executions, waiting)).toMatchObject({ state: State.SUCCEEDED, agentId: id, attempt: 1 });
  expect(await execute(executions, quick)).toMatchObject({ state: State.SUCCEEDED, agentId: before.agentId });
});

test('an agent that is asked to stop lets running work end and takes no more', async () => {
  const running = await create(executions, ticker(TICKS));
  await untilPrinted(executions, running, 'line 3 ');
  const stopped = agent.stop();
  expect(await finished(executions, running)).toMatchObject({ state: State.SUCCEEDED, attempt: 1 });
  expect((await storedLog(executions, running)).stdout.toString()).toBe(tickerText(TICKS));
  expect(await stopped).toEqual({ code: 0, signal: null });
  agent.startAgain();
  await stack.untilOnline('agent-1');
});

test('kill -9 of the agent in the middle of a run: the code goes on, and nothing of its output or result is lost', async () => {
  const id = await create(executions, ticker(TICKS));
  await untilPrinted(executions, id, 'line 10 ');
  await agent.stop('SIGKILL');
  agent.startAgain();
  const execution = await finished(executions, id);
  expect(execution).toMatchObject({ state: State.SUCCEEDED, attempt: 1, outputJson: '{"lines":100}' });
  expect((await storedLog(executions, id)).stdout.toString()).toBe(tickerText(TICKS));
});

test('kill -9 of the agent while the code ends: the result waits for the next agent', async () => {
  const ticks = { lines: 20, width: 10, pause: 0.02 };
  const id = await create(executions, ticker(ticks));
  await untilPrinted(executions, id, 'line 1 ');
  await agent.stop('SIGKILL');
  await until('the code to end', () => !agent.launcherProcesses().some(({ command }) => command.includes('ticker')));
  agent.startAgain();
  expect(await finished(executions, id)).toMatchObject({
    state: State.SUCCEEDED,
    attempt: 1,
    outputJson: '{"lines":20}',
  });
  expect((await storedLog(executions, id)).stdout.toString()).toBe(tickerText(ticks));
});

test('an attempt whose launcher is killed is lost, and tried again because that is transient', async () => {
  const policy = { initialBackoff: { nanos: 1_000_000 } };
  const id = await create(executions, { ...ticker(TICKS), retryPolicy: policy });
  await untilPrinted(executions, id, 'line 5 ');
  process.kill(agent.launcherPid ?? 0, 'SIGKILL');
  const execution = await finished(executions, id);
  expect(execution).toMatchObject({ state: State.SUCCEEDED, attempt: 2 });
  expect(execution.attempts).toMatchObject([
    { number: 1, state: State.FAILED, error: { code: Code.AGENT_LOST } },
    { number: 2, state: State.SUCCEEDED },
  ]);
  expect((await storedLog(executions, id, { attempt: 2 })).stdout.toString()).toBe(tickerText(TICKS));
  const first = await storedLog(executions, id, { attempt: 1 });
  expect(tickerText(TICKS).startsWith(first.stdout.toString())).toBe(true);
});

test('an agent that ends together with its launcher, as with its host: what ran is lost at once, with the log that was kept', async () => {
  const id = await create(executions, { ...ticker(TICKS), retryPolicy: { maxAttempts: 1 } });
  await untilPrinted(executions, id, 'line 10 ');
  const launcher = agent.launcherPid ?? 0;
  await agent.stop('SIGKILL');
  process.kill(launcher, 'SIGKILL');
  await until('the launcher to end', () => agent.launcherPid === undefined);
  agent.startAgain();
  expect(await finished(executions, id)).toMatchObject({
    state: State.FAILED,
    attempt: 1,
    error: { code: Code.AGENT_LOST },
  });
  const { stdout } = await storedLog(executions, id);
  expect(stdout.toString()).toContain('line 10 ');
  expect(tickerText(TICKS).startsWith(stdout.toString())).toBe(true);
});

test('an execution that must not be tried again ends as lost with its agent', async () => {
  const id = await create(executions, { ...ticker(TICKS), retryPolicy: { maxAttempts: 1 } });
  await untilPrinted(executions, id, 'line 5 ');
  process.kill(agent.launcherPid ?? 0, 'SIGKILL');
  expect(await finished(executions, id)).toMatchObject({
    state: State.FAILED,
    attempt: 1,
    error: { code: Code.AGENT_LOST },
  });
});

test('an execution that was handed to a launcher which is then killed ends as lost, since it may have started', async () => {
  await execute(executions, quick);
  const launcher = agent.launcherPid ?? 0;
  // It takes the start, and neither runs it nor says so.
  process.kill(launcher, 'SIGSTOP');
  const id = await create(executions, { ...quick, retryPolicy: { maxAttempts: 1 } });
  const metrics = `${await agent.metricsUrl()}/metrics`;
  await until('the agent to have it', async () =>
    /^harrier_agent_active_executions 1$/m.test(await (await fetch(metrics)).text()),
  );
  expect((await get(executions, id)).state).toBe(State.ASSIGNED);
  process.kill(launcher, 'SIGKILL');
  expect(await finished(executions, id)).toMatchObject({
    state: State.FAILED,
    attempt: 1,
    error: { code: Code.AGENT_LOST, message: expect.stringContaining('may have started') },
  });
});
