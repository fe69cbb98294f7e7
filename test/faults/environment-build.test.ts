import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { create, execute, finished, get, untilState } from '../support/executions.ts';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';

// Packages come from the real index; scipy is large enough to be caught at.
const stack = await startStack();
const { executions } = stack;
const [agent] = stack.agents;
if (agent === undefined) throw new Error('there is no agent');
const store = join(agent.dataDirectory, 'environments');

/** A call of code in an environment with one requirement. */
const inVenv = (requirement: string, source: string) => ({
  target: {
    case: 'code' as const,
    value: { source, environment: { kind: { case: 'venv' as const, value: { requirements: [requirement] } } } },
  },
  inputForm: { case: 'inputJson' as const, value: '{}' },
  limits: { memoryBytes: 2n ** 30n },
});
const SCIPY = 'scipy==1.15.3';
const SYMPY = 'sympy==1.13.3';
const MATPLOTLIB = 'matplotlib==3.10.3';
const PANDAS = 'pandas==2.2.3';
const versionOf = (name: string) =>
  `import ${name}\ndef handler(input):\n    return {"version": ${name}.__version__}\n`;

/** What is in the store beside the packages that builds keep. */
function stored(): string[] {
  return readdirSync(store, { withFileTypes: true })
    .filter((tenant) => tenant.isDirectory() && !tenant.name.startsWith('.'))
    .flatMap(({ name }) => readdirSync(join(store, name)))
    .filter((name) => !name.startsWith('.cache'));
}

/** Environments, and at most the directory that waits for the next build. */
function holdsNothingBut(environments: number): boolean {
  const whole = stored().filter((name) => !name.startsWith('.'));
  return whole.length === environments && stored().length - whole.length <= 1;
}

test('kill -9 of the agent in the middle of a build: the execution is prepared again, and nothing torn is left', async () => {
  const id = await create(executions, inVenv(SCIPY, versionOf('scipy')));
  await untilState(executions, id, State.PREPARING);
  await until('a build to begin', () => stored().some((name) => name.startsWith('.build-')));
  await agent.stop('SIGKILL');
  agent.startAgain();
  expect(await finished(executions, id)).toMatchObject({ state: State.SUCCEEDED, outputJson: '{"version":"1.15.3"}' });
  await until('the store to hold one environment', () => holdsNothingBut(1), { seen: stored });
});

test('kill -9 of the agent in the middle of a build: what may not be tried again is prepared again, since it has not started', async () => {
  const request = inVenv(SYMPY, versionOf('sympy'));
  const id = await create(executions, { ...request, retryPolicy: { maxAttempts: 1 } });
  await untilState(executions, id, State.PREPARING);
  await until('a build to begin', () => stored().some((name) => name.startsWith('.build-')));
  await agent.stop('SIGKILL');
  agent.startAgain();
  expect(await finished(executions, id)).toMatchObject({ state: State.SUCCEEDED, outputJson: '{"version":"1.13.3"}' });
});

test('kill -9 of the agent while code runs in an environment: the code goes on in it', async () => {
  const source = `import scipy, time
def handler(input):
    time.sleep(3)
    import scipy.stats
    return {"t": round(scipy.stats.norm.cdf(0.0), 3)}
`;
  const id = await create(executions, inVenv(SCIPY, source));
  await untilState(executions, id, State.RUNNING);
  await agent.stop('SIGKILL');
  agent.startAgain();
  expect(await finished(executions, id)).toMatchObject({ state: State.SUCCEEDED, attempt: 1, outputJson: '{"t":0.5}' });
});

test('kill -9 of the launcher in the middle of a build: the next build succeeds', async () => {
  const id = await create(executions, inVenv(MATPLOTLIB, versionOf('matplotlib')));
  await untilState(executions, id, State.PREPARING);
  await until('a build to begin', () => stored().some((name) => name.startsWith('.build-')));
  const { launcherPid } = agent;
  if (launcherPid !== undefined) process.kill(launcherPid, 'SIGKILL');
  const first = await finished(executions, id);
  if (first.state !== State.SUCCEEDED) expect(first.error?.message).toMatch(/launcher/);
  expect(await execute(executions, inVenv(MATPLOTLIB, versionOf('matplotlib')))).toMatchObject({
    state: State.SUCCEEDED,
    outputJson: '{"version":"3.10.3"}',
  });
  await until('the store to hold three environments', () => holdsNothingBut(3), { seen: stored });
});

test('a second SIGTERM in the middle of a build: what may not be tried again goes back, and the next agent prepares it', async () => {
  const id = await create(executions, { ...inVenv(PANDAS, versionOf('pandas')), retryPolicy: { maxAttempts: 1 } });
  await untilState(executions, id, State.PREPARING);
  await until('a build to begin', () => stored().some((name) => name.startsWith('.build-')));
  agent.program.signal('SIGTERM');
  await until('the agent to stop', () => agent.program.logs.some(({ msg }) => msg === 'stopping'));
  expect((await get(executions, id)).state).toBe(State.PREPARING);
  await agent.stop('SIGTERM');
  expect((await get(executions, id)).attempts).toMatchObject([{ number: 1, error: { code: Code.SUBMIT_FAILED } }]);
  agent.startAgain();
  expect(await finished(executions, id)).toMatchObject({ state: State.SUCCEEDED, outputJson: '{"version":"2.2.3"}' });
});
