import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { install } from '../../faults/world/release.ts';
import { DOCKER_SOCKET, PYTHON_IMAGE, startDockerEngine } from '../support/docker-engine.ts';
import { create, execute, finished, storedLog, untilPrinted, untilState } from '../support/executions.ts';
import { code, fixture } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { tickerText } from '../support/ticker.ts';
import { until } from '../support/wait.ts';

await startDockerEngine();

const stack = await startStack({
  agents: [
    {
      flags: ['--stop-grace', '0'],
      env: {
        HARRIER_AGENT_DOCKER_HOST: `unix://${DOCKER_SOCKET}`,
        HARRIER_AGENT_ALLOWED_IMAGES: 'harrier-test/*',
        HARRIER_AGENT_RUNNER_IMAGES: `python=${PYTHON_IMAGE}`,
      },
    },
  ],
});
const { executions } = stack;
const [agent] = stack.agents;
if (agent === undefined) throw new Error('there is no agent');

const TICKS = { lines: 60, width: 40, pause: 0.1 };
const IN_IMAGE = { kind: { case: 'docker' as const, value: { image: PYTHON_IMAGE } } };
const LINES = `import time\nfor n in range(60): print("line", n, "x" * 40, flush=True); time.sleep(0.1)`;
const quick = code('def handler(input):\n    return {}\n');

/** One of each kind of work, all of which print the same for six seconds. */
const WORK = {
  'in a sandbox': code(fixture('ticker.py'), TICKS),
  'in a warm container': {
    target: { case: 'code' as const, value: { source: fixture('ticker.py'), environment: IN_IMAGE } },
    inputForm: { case: 'inputJson' as const, value: JSON.stringify(TICKS) },
  },
  'in a container of its own': {
    target: { case: 'command' as const, value: { argv: ['python3', '-c', LINES], environment: IN_IMAGE } },
  },
};

async function startAll(): Promise<[string, string][]> {
  const started = await Promise.all(
    Object.entries(WORK).map(async ([kind, request]) => [kind, await create(executions, request)] as [string, string]),
  );
  await Promise.all(started.map(([, id]) => untilPrinted(executions, id, 'line 3 ')));
  return started;
}

async function expectWhole(started: [string, string][]): Promise<void> {
  for (const [kind, id] of started) {
    const { state, attempt, error } = await finished(executions, id);
    expect({ state, attempt, error }, kind).toEqual({ state: State.SUCCEEDED, attempt: 1, error: undefined });
    expect((await storedLog(executions, id)).stdout.toString(), kind).toBe(tickerText(TICKS));
  }
}

test.each([
  ['killed', 'SIGKILL'],
  ['asked to stop without waiting', 'SIGTERM'],
] as const)(
  'an agent that is %s is followed by the next: all that runs goes on, and nothing of it is lost',
  async (_, signal) => {
    const started = await startAll();
    await agent.stop(signal);
    agent.startAgain();
    await expectWhole(started);
  },
);

test('an upgraded agent goes on with the launcher of the old one, and starts its own when that has nothing to do', async () => {
  const old = agent.launcherPid;
  const started = await startAll();
  // However long the start takes, the old launcher has something to do.
  const held = await create(executions, code('import time\n\ndef handler(input):\n    time.sleep(600)\n'));
  await untilState(executions, held, State.RUNNING);
  await agent.stop('SIGKILL');
  const upgraded = install();
  const options = join(upgraded.runtime, 'options.py');
  writeFileSync(options, readFileSync(options, 'utf8').replace('VERSION = "', 'VERSION = "99.'));
  agent.startAgain({ program: upgraded.main });
  await stack.untilOnline('agent-1');
  const beside = await create(executions, quick);
  expect(await finished(executions, beside)).toMatchObject({ state: State.SUCCEEDED });
  expect(agent.launcherPid).toBe(old);
  await expectWhole(started);
  await executions.cancelExecution({ id: held });
  await until('another launcher', () => agent.launcherPid !== undefined && agent.launcherPid !== old);
  expect(await execute(executions, quick)).toMatchObject({ state: State.SUCCEEDED });
});

test('what comes while a launcher is replaced waits for the next one', async () => {
  const old = agent.launcherPid;
  await agent.stop('SIGTERM');
  // Other settings of the launcher are another build, too.
  agent.startAgain({ flags: ['--stop-grace', '0', '--spool-bytes', String(256 * 1024 * 1024)] });
  const ids = await Promise.all(Array.from({ length: 30 }, () => create(executions, quick)));
  for (const id of ids) {
    expect(await untilState(executions, id, State.SUCCEEDED)).toMatchObject({ attempt: 1 });
  }
  await until('another launcher', () => agent.launcherPid !== undefined && agent.launcherPid !== old);
});
