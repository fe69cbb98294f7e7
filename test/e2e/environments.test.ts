import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { type Environment_VenvSchema, EnvironmentSchema } from '@harrier/shared/gen/module';
import { describe, expect, test } from 'vitest';
import { create as createExecution, execute, finished, untilState } from '../support/executions.ts';
import { moduleCall } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { until, within } from '../support/wait.ts';

// Packages come from the real index.
const stack = await startStack({ agents: [{ name: 'one', labels: { place: 'here' } }, { name: 'two' }] });
const { executions, modules, clients } = stack;
const MINUTES = 10 * 60_000;

const venv = (value: MessageInitShape<typeof Environment_VenvSchema>) =>
  create(EnvironmentSchema, { kind: { case: 'venv', value } } as MessageInitShape<typeof EnvironmentSchema>);
const code = (source: string, environment = venv({})) => ({
  target: { case: 'code' as const, value: { source, environment } },
});
const VERSION_OF = (name: string) =>
  `import importlib.metadata as m\ndef handler(input):\n    return {"version": m.version("${name}")}\n`;

test('a handler with numpy and pandas', { timeout: MINUTES }, async () => {
  const source = `import numpy as np, pandas as pd
def handler(input):
    frame = pd.DataFrame({"x": np.arange(input["n"]), "g": np.arange(input["n"]) % 2})
    return {str(k): int(v) for k, v in frame.groupby("g").x.sum().items()}
`;
  await modules.createModule({
    module: {
      ...{ name: 'data', version: '1.0.0', code: source, preload: ['numpy', 'pandas'] },
      environment: venv({ requirements: ['numpy', 'pandas'] }),
    },
  });
  const request = { ...moduleCall('data', { n: 10 }), limits: { memoryBytes: 2n ** 30n } as never };
  const { execution } = await executions.execute(request, { timeoutMs: MINUTES });
  expect(execution?.state, execution?.error?.message).toBe(State.SUCCEEDED);
  expect(execution?.outputJson).toBe('{"0":20,"1":25}');
  expect(execution?.phases?.prepareMs).toBeGreaterThan(0);
  expect(execution?.stderrTail).toMatch(/numpy==/);
  const { module } = await modules.getModule({ name: 'data' });
  expect(module?.environment?.kind).toMatchObject({
    value: { lock: expect.stringMatching(/numpy==[\s\S]*--hash=sha256:/) },
  });
});

test('a module that cannot be imported ahead is told to the first call of the interpreter, and fails none', async () => {
  const source = 'def handler(input):\n    return {"n": 1}\n';
  const environment = venv({ requirements: ['six==1.17.0'] });
  await modules.createModule({
    module: {
      ...{ name: 'misspelt', version: '1.0.0', code: source, environment, preload: ['sixx', 'six'] },
      agentSelector: 'place=here',
    },
  });
  const lines: string[][] = [];
  for (let n = 0; n < 3; n++) {
    const { state, stderrTail } = await execute(executions, moduleCall('misspelt'));
    expect(state).toBe(State.SUCCEEDED);
    lines.push(stderrTail.split('\n').filter((line) => line.startsWith('harrier: preload')));
  }
  const line = "harrier: preload of sixx failed: ModuleNotFoundError: No module named 'sixx'";
  expect(lines).toEqual([[line], [], []]);
});

test('a lock with hashes is installed as it stands', async () => {
  const lock = 'six==1.17.0 --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274\n';
  await modules.createModule({
    module: { name: 'locked', version: '1.0.0', code: VERSION_OF('six'), environment: venv({ lock }) },
  });
  expect((await execute(executions, moduleCall('locked'))).outputJson).toBe('{"version":"1.17.0"}');
});

test('every agent installs what the first one found', async () => {
  await modules.createModule({
    module: {
      name: 'shared',
      version: '1.0.0',
      code: VERSION_OF('idna'),
      environment: venv({ requirements: ['idna>=3'] }),
    },
  });
  const ran = [];
  for (const name of ['one', 'two']) {
    await clients.agents.drainAgent({ id: await stack.idOf(name === 'one' ? 'two' : 'one') });
    const execution = await execute(executions, moduleCall('shared'));
    expect(execution.state, execution.error?.message).toBe(State.SUCCEEDED);
    expect(execution.agentId).toBe(await stack.idOf(name));
    ran.push(execution.outputJson);
    await clients.agents.resumeAgent({ id: await stack.idOf(name === 'one' ? 'two' : 'one') });
  }
  expect(ran[0]).toBe(ran[1]);
  const { lock, agents } = await modules.validateModule({
    module: {
      name: 'shared',
      version: '1.0.0',
      code: VERSION_OF('idna'),
      environment: venv({ requirements: ['idna>=3'] }),
    },
  });
  expect(lock).toMatch(/^idna==3/);
  expect(agents.map(({ name, held }) => [name, held])).toEqual([
    ['one', true],
    ['two', true],
  ]);
});

test('a version whose environment its agent has from another module gets a lock like every other', async () => {
  for (const name of ['first', 'second']) {
    const environment = venv({ requirements: ['six>=1.16'] });
    await modules.createModule({ module: { name, version: '1.0.0', code: VERSION_OF('six'), environment } });
  }
  const locks = [];
  for (const name of ['first', 'second']) {
    await execute(executions, { ...moduleCall(name), agentSelector: 'place=here' });
    locks.push(
      await until(`the lock of ${name}`, async () => {
        const { module } = await modules.getModule({ name });
        return module?.environment?.kind.case === 'venv' && module.environment.kind.value.lock;
      }),
    );
  }
  expect(locks[0]).toMatch(/^six==/);
  expect(locks[1]).toBe(locks[0]);
});

describe('what cannot be prepared says why', () => {
  test.each([
    [
      'an unknown package',
      { requirements: ['harrier-no-such-package-x'] },
      'ENVIRONMENT_FAILED',
      /harrier-no-such-package-x/,
    ],
    ['a conflict', { requirements: ['six==1.16.0', 'six==1.17.0'] }, 'ENVIRONMENT_FAILED', /six/],
    ['a Python that no host has', { python: '3.99' }, 'ENVIRONMENT_FAILED', /no Python "3\.99"/],
    [
      'a second index',
      { extraIndexUrls: ['https://example.org/simple'] },
      'POLICY_DENIED',
      /HARRIER_AGENT_ALLOW_EXTRA_INDEX/,
    ],
    [
      'an index that is not allowed',
      { indexUrl: 'https://example.org/simple' },
      'POLICY_DENIED',
      /HARRIER_AGENT_ALLOWED_INDEXES/,
    ],
  ] as const)('%s', async (_, value, error, message) => {
    const execution = await execute(executions, code('def handler(input): return {}\n', venv(value as object)));
    expect(execution).toMatchObject({
      state: State.FAILED,
      error: { code: Code[error], message: expect.stringMatching(message) },
    });
  });

  test('an index that cannot be reached', async () => {
    const agent = {
      name: 'cut-off',
      labels: { index: 'none' },
      env: { HARRIER_AGENT_INDEX_URL: 'http://192.0.2.1:9/simple' },
    };
    const { options } = await stack.addAgent(agent);
    const request = {
      ...code('def handler(input): return {}\n', venv({ requirements: ['six'] })),
      agentSelector: 'index=none',
    };
    const execution = await execute(executions, request);
    expect(execution.error?.code, execution.error?.message).toBe(Code.ENVIRONMENT_FAILED);
    expect(execution.error?.message).toMatch(/192\.0\.2\.1/);
    expect(options.name).toBe('cut-off');
  });
});

test('a cancel does not wait for the build', async () => {
  const id = await createExecution(
    executions,
    code('def handler(input): return {}\n', venv({ requirements: ['scipy'] })),
  );
  await untilState(executions, id, State.PREPARING);
  await executions.cancelExecution({ id, reason: 'not needed' });
  const ended = await within('the end', finished(executions, id));
  expect(ended).toMatchObject({ state: State.CANCELLED, error: { message: 'not needed' } });
});
