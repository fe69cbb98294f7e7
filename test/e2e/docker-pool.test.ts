import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { describe, expect, test } from 'vitest';
import { buildImage, DOCKER_SOCKET, docker, PYTHON_IMAGE, startDockerEngine } from '../support/docker-engine.ts';
import { create, execute, finished, storedLog, untilPrinted } from '../support/executions.ts';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';

await startDockerEngine();
const SETTINGS = {
  HARRIER_AGENT_DOCKER_HOST: `unix://${DOCKER_SOCKET}`,
  HARRIER_AGENT_ALLOWED_IMAGES: 'harrier-test/*',
};

const stack = await startStack({
  agents: [
    { labels: { kind: 'warm' }, env: { ...SETTINGS, HARRIER_AGENT_MAX_CONTAINERS: '2' } },
    { labels: { kind: 'idle' }, env: { ...SETTINGS, HARRIER_AGENT_CONTAINER_IDLE_S: '1' } },
  ],
});
const { executions } = stack;
const [warm, idle] = stack.agents;

const RETURN_IMAGE = 'def handler(input):\n    return {"text": open("/text").read()}\n';
const RETURN_PACKAGES =
  'import sys\ndef handler(input):\n    return {"there": sorted(set(input["names"]) & set(sys.modules))}\n';

/** Images that differ, so that each has a container of its own. */
function ownImage(text: string): string {
  const name = `harrier-test/pool:${text}`;
  buildImage(name, `FROM ${PYTHON_IMAGE}\nRUN echo ${text} > /text\n`);
  return name;
}

function code(source: string, options: { image?: string; agent?: 'warm' | 'idle'; input?: object } = {}) {
  const { image = PYTHON_IMAGE, agent = 'warm', input = {} } = options;
  const environment = { kind: { case: 'docker' as const, value: { image } } };
  return {
    target: { case: 'code' as const, value: { source, environment } },
    inputForm: { case: 'inputJson' as const, value: JSON.stringify(input) },
    agentSelector: `kind=${agent}`,
  };
}

/** Names of the warm containers of an agent. */
function containers(agent: typeof warm): string[] {
  const filters = ['--filter', `label=harrier.agent=${agent?.dataDirectory}`, '--filter', 'label=harrier.role=pool'];
  return docker('ps', '--all', '--format', '{{.Names}}', ...filters)
    .split('\n')
    .filter(Boolean);
}

async function outputOf(request: ReturnType<typeof code>): Promise<unknown> {
  const execution = await execute(executions, request);
  expect(execution.state, `${execution.error?.message}\n${execution.stderrTail}`).toBe(State.SUCCEEDED);
  return JSON.parse(execution.outputJson);
}

describe('a warm container', () => {
  test('serves call after call, each in a process of its own', async () => {
    const source = 'import os\ndef handler(input):\n    return {"text": open("/text").read(), "pid": os.getpid()}\n';
    const image = ownImage('first');
    const first = await outputOf(code(source, { image }));
    const before = containers(warm);
    expect(await Promise.all([1, 2, 3].map(() => outputOf(code(source, { image }))))).toEqual([first, first, first]);
    expect(containers(warm)).toEqual(before);
    expect(first).toEqual({ text: 'first\n', pid: 1 });
  });

  test('makes room when all places are taken, the one that was idle longest first', async () => {
    for (const text of ['one', 'two', 'three']) {
      expect(await outputOf(code(RETURN_IMAGE, { image: ownImage(text) }))).toEqual({ text: `${text}\n` });
    }
    await until('a container to have left', () => containers(warm).length <= 2);
    expect(await outputOf(code(RETURN_IMAGE, { image: 'harrier-test/pool:three' }))).toEqual({ text: 'three\n' });
  });

  test('gives its place to whoever waits as soon as its call has ended', async () => {
    const source =
      'import os, time\ndef handler(input):\n    print("up", flush=True)\n    time.sleep(input["s"])\n    return {}\n';
    const busy = await Promise.all(
      ['five', 'six'].map((text) => create(executions, code(source, { image: ownImage(text), input: { s: 3600 } }))),
    );
    for (const id of busy) await untilPrinted(executions, id, 'up');
    const waiting = create(executions, code(RETURN_IMAGE, { image: ownImage('seven') }));
    await executions.cancelExecution({ id: busy[0] ?? '' });
    const execution = await finished(executions, await waiting);
    expect(execution, execution.error?.message).toMatchObject({ outputJson: '{"text":"seven\\n"}' });
    await executions.cancelExecution({ id: busy[1] ?? '' });
  });

  test('has imported what its module preloads', async () => {
    const environment = { kind: { case: 'docker' as const, value: { image: PYTHON_IMAGE } } };
    await stack.modules.createModule({
      module: {
        name: 'preloading',
        version: '1.0.0',
        code: RETURN_PACKAGES,
        environment,
        preload: ['sqlite3', 'no_such_module', 'xml.dom.minidom'],
        agentSelector: 'kind=warm',
      },
    });
    const names = ['sqlite3', 'xml.dom.minidom', 'curses'];
    const execution = await execute(executions, {
      target: { case: 'module', value: 'preloading' },
      inputForm: { case: 'inputJson', value: JSON.stringify({ names }) },
    });
    expect(execution.outputJson, execution.error?.message).toBe(
      '{"there": ["sqlite3", "xml.dom.minidom"]}'.replaceAll(' ', ''),
    );
    expect(execution.stderrTail).toContain(
      "harrier: preload of no_such_module failed: ModuleNotFoundError: No module named 'no_such_module'\n",
    );
  });

  test('leaves when nobody has used it for a while, and its directory with it', async () => {
    expect(await outputOf(code('def handler(input):\n    return {"a": 1}\n', { agent: 'idle' }))).toEqual({ a: 1 });
    await until('the container to leave', () => containers(idle).length === 0);
    expect(await outputOf(code('def handler(input):\n    return {"a": 2}\n', { agent: 'idle' }))).toEqual({ a: 2 });
  });

  test('that is killed ends its calls, and the next call gets another one', async () => {
    const image = ownImage('killed');
    const sleeping = 'import time\ndef handler(input):\n    print("up", flush=True)\n    time.sleep(3600)\n';
    const id = await create(executions, { ...code(sleeping, { image }), retryPolicy: { maxAttempts: 1 } as never });
    await untilPrinted(executions, id, 'up');
    const running = docker('ps', '--quiet', '--filter', `ancestor=${image}`);
    docker('kill', running);
    expect(await finished(executions, id)).toMatchObject({ state: State.FAILED, error: { code: Code.KILLED } });
    expect(await outputOf(code(RETURN_IMAGE, { image }))).toEqual({ text: 'killed\n' });
  });
});

test('an image without Python is refused with what it said', async () => {
  buildImage('harrier-test/nothing:1', `FROM ${PYTHON_IMAGE}\nRUN rm /usr/bin/python3\n`);
  const execution = await execute(executions, code(RETURN_IMAGE, { image: 'harrier-test/nothing:1' }));
  expect(execution).toMatchObject({ state: State.FAILED, error: { code: Code.ENVIRONMENT_FAILED } });
  expect(execution.error?.message).toMatch(/no Python 3\.9 or newer comes up in the image .*python3/s);
});

test('a call goes on while its agent is killed and started again; the container leaves after it', async () => {
  const image = ownImage('restart');
  const source = `import time
def handler(input):
    for n in range(400):
        print(n, flush=True)
        time.sleep(0.01)
    return {"n": n}
`;
  const id = await create(executions, code(source, { image, agent: 'idle' }));
  await untilPrinted(executions, id, '20\n');
  idle?.program.signal('SIGKILL');
  await idle?.program.exited;
  idle?.startAgain();
  const execution = await finished(executions, id);
  expect(execution, execution.error?.message).toMatchObject({
    state: State.SUCCEEDED,
    attempt: 1,
    outputJson: '{"n":399}',
  });
  const { stdout } = await storedLog(executions, id);
  expect(stdout.toString()).toBe(Array.from({ length: 400 }, (_, n) => `${n}\n`).join(''));
  await until('the container to leave', () => containers(idle).length === 0);
  expect(await outputOf(code(RETURN_IMAGE, { image, agent: 'idle' }))).toEqual({ text: 'restart\n' });
});
