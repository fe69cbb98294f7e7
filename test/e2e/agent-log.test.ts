import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { create, execute, finished, untilPrinted } from '../support/executions.ts';
import { http } from '../support/http.ts';
import { code } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';
import { directory } from '../support/workspace.ts';

const SECRET = 'what-code-prints';
const logDirectory = directory('log');
const logFile = join(logDirectory, 'agent.log');
const stack = await startStack({
  agents: [
    {
      name: 'logging',
      flags: ['--log-file', logFile],
      env: {
        HARRIER_LOG_LEVEL: 'debug',
        HARRIER_AGENT_LOG_FILE_BYTES: String(64 * 1024),
        HARRIER_AGENT_LOG_FILES: '3',
      },
    },
  ],
});
const [agent] = stack.agents;

type Line = Record<string, unknown>;

function linesIn(text: string): Line[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Line);
}

const about = (lines: Line[], id: string) => lines.filter(({ executionId }) => executionId === id);
const inFile = () => (existsSync(logFile) ? linesIn(readFileSync(logFile, 'utf8')) : []);

test('each line about an attempt says which, whose and of what class, on standard output and in the file', async () => {
  const succeeded = await execute(stack.executions, {
    ...code(`def handler(input):\n    print("${SECRET}")\n    return {}\n`),
    taskClass: 'cpu_long',
  });
  const failed = await execute(stack.executions, code(`def handler(input):\n    raise ValueError("${SECRET}")\n`));
  const cancelled = await create(stack.executions, code('import time\ndef handler(input):\n    time.sleep(3600)\n'));
  await until('it to run', async () => (await stack.executions.getExecution({ id: cancelled })).execution?.startTime);
  await stack.executions.cancelExecution({ id: cancelled });
  const ends = () => inFile().filter(({ msg }) => msg === 'attempt ended');
  await until('the ends of all three to be logged', () => ends().length === 3, { seen: ends });

  const common = {
    name: 'agent',
    attempt: 1,
    tenant: expect.stringMatching(/^[0-9a-f-]{36}$/),
    time: expect.any(String),
  };
  expect(about(inFile(), succeeded.id)).toEqual([
    {
      ...{ ...common, level: 'debug', pid: expect.any(Number), executionId: succeeded.id, taskClass: 'cpu_long' },
      ...{ msg: 'attempt ended', outcome: 'succeeded', prepareMs: expect.any(Number), runMs: expect.any(Number) },
    },
  ]);
  expect(about(inFile(), failed.id)).toMatchObject([
    { ...common, taskClass: 'cpu_short', outcome: 'failed', code: 'HANDLER_ERROR' },
  ]);
  expect(about(inFile(), cancelled)).toMatchObject([
    { ...common, taskClass: 'cpu_short', msg: 'cancelling' },
    { ...common, taskClass: 'cpu_short', msg: 'attempt ended', outcome: 'cancelled', code: 'CANCELLED' },
  ]);
  const logged = () => agent?.program.logs ?? [];
  await until('standard output to have as many lines', () => logged().length === inFile().length);
  expect(logged(), 'standard output has the same').toEqual(inFile());
  expect(agent?.program.stderr, 'and standard error nothing').toBe('');
  expect(agent?.program.output).not.toContain(SECRET);
});

test('what goes on while the agent is started again is still told as whose and of what class, and counted so', async () => {
  const source = 'import time\ndef handler(input):\n    print("on", flush=True)\n    time.sleep(3600)\n';
  const classes = ['cpu_long', 'cpu_short'];
  const ids = await Promise.all(classes.map((taskClass) => create(stack.executions, { ...code(source), taskClass })));
  for (const id of ids) await untilPrinted(stack.executions, id, 'on');
  await agent?.stop('SIGKILL');
  agent?.startAgain();
  for (const id of ids) await stack.executions.cancelExecution({ id });
  for (const id of ids)
    expect(await finished(stack.executions, id)).toMatchObject({ state: State.CANCELLED, attempt: 1 });
  const logged = () => agent?.program.logs ?? [];
  const ends = () => logged().filter(({ msg }) => msg === 'attempt ended');
  await until('both ends to be logged', () => ends().length === 2, { seen: logged });
  const tenant = expect.stringMatching(/^[0-9a-f-]{36}$/);
  for (const [index, taskClass] of classes.entries()) {
    const lines = about(logged(), ids[index] ?? '');
    expect(lines).toEqual(lines.map(() => expect.objectContaining({ tenant, taskClass })));
  }
  const { text } = await http(`${await agent?.metricsUrl()}/metrics`);
  const counted = text.split('\n').filter((line) => line.startsWith('harrier_agent_executions_total{'));
  const labels = (taskClass: string) => `task_class="${taskClass}",environment="inline",outcome="cancelled"`;
  expect(counted.sort()).toEqual(classes.map((name) => `harrier_agent_executions_total{${labels(name)}} 1`));
});

test('a full file is followed by a new one, and the oldest goes', async () => {
  const isFull = () => readdirSync(logDirectory).length === 3;
  await until('three files', async () => {
    const calls = Array.from({ length: 20 }, () =>
      execute(stack.executions, code('def handler(input):\n    return {}\n')),
    );
    await Promise.all(calls);
    return isFull();
  });
  for (const name of ['agent.log.1', 'agent.log.2']) {
    const text = readFileSync(join(logDirectory, name), 'utf8');
    expect(linesIn(text).length, name).toBeGreaterThan(10);
    expect(text.length).toBeLessThan(2 * 64 * 1024);
  }
});
