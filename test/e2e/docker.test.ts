import { realpathSync } from 'node:fs';
import { dirname } from 'node:path';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { Environment_Docker_Pull as Pull } from '@harrier/shared/gen/module';
import { describe, expect, test } from 'vitest';
import {
  DOCKER_SOCKET,
  docker,
  imageWith,
  PYTHON_IMAGE,
  startDockerEngine,
  stopDockerEngine,
} from '../support/docker-engine.ts';
import { create, execute, finished, get, storedLog, untilState } from '../support/executions.ts';
import { type Stack, startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';

const ANSWER = 'import json, sys; document = json.load(sys.stdin); print(json.dumps({"ok": True, "output": ';

await startDockerEngine();

const stack: Stack = await startStack({
  agents: [
    {
      env: {
        HARRIER_AGENT_DOCKER_HOST: `unix://${DOCKER_SOCKET}`,
        HARRIER_AGENT_ALLOWED_IMAGES: 'harrier-test/*',
        HARRIER_AGENT_RUNNER_IMAGES: `python=${PYTHON_IMAGE}`,
      },
    },
  ],
});
const { executions } = stack;

function image(script: string, name = PYTHON_IMAGE) {
  return {
    target: { case: 'image' as const, value: { image: name, argv: ['python3', '-c', script] } },
    inputForm: { case: 'inputJson' as const, value: '{"n": 1.0}' },
  };
}

function inDocker(...argv: string[]) {
  const environment = { kind: { case: 'docker' as const, value: { image: PYTHON_IMAGE } } };
  return { target: { case: 'command' as const, value: { argv, environment } } };
}

async function metric(name: string): Promise<number> {
  const agent = stack.agents[0];
  const text = await (await fetch(`${await agent?.metricsUrl()}/metrics`)).text();
  return Number(new RegExp(`^${name} (.*)$`, 'm').exec(text)?.[1]);
}

describe('an image', () => {
  test('is run as a container, its result and its log are stored', async () => {
    const script = `import sys; print("to the log", file=sys.stderr); ${ANSWER}document["input"]}))`;
    const execution = await execute(executions, image(script));
    expect(execution, execution.error?.message).toMatchObject({
      state: State.SUCCEEDED,
      outputJson: '{"n": 1.0}',
      exitCode: 0,
      stdoutTail: '',
      stderrTail: 'to the log\n',
    });
  });

  test('that fails says how', async () => {
    const execution = await execute(executions, image('import sys; sys.exit(3)'));
    expect(execution).toMatchObject({ state: State.FAILED, error: { code: Code.EXIT_NONZERO }, exitCode: 3 });
  });

  test('that is not allowed is denied, with the rule', async () => {
    const execution = await execute(executions, image('pass', 'evil/image:1'));
    expect(execution).toMatchObject({
      state: State.FAILED,
      error: {
        code: Code.POLICY_DENIED,
        message: expect.stringContaining('HARRIER_AGENT_ALLOWED_IMAGES allows harrier-test/*'),
      },
    });
  });

  test('that is not there fails with its name', async () => {
    const request = image('pass', 'harrier-test/none:1');
    const value = { ...request.target.value, pull: Pull.NEVER };
    const execution = await execute(executions, { ...request, target: { case: 'image', value } });
    expect(execution).toMatchObject({
      state: State.FAILED,
      error: { code: Code.ENVIRONMENT_FAILED, message: expect.stringContaining('docker.io/harrier-test/none:1') },
    });
  });

  test('is cancelled, and counted while it runs', async () => {
    const id = await create(executions, image('import time; time.sleep(3600)'));
    await untilState(executions, id, State.RUNNING);
    expect(await metric('harrier_agent_active_containers')).toBe(1);
    await executions.cancelExecution({ id });
    expect((await finished(executions, id)).state).toBe(State.CANCELLED);
    await until('the container to be gone', async () => (await metric('harrier_agent_active_containers')) === 0);
  });
});

test('code that names no image runs in that of the agent', async () => {
  const environment = { kind: { case: 'docker' as const, value: {} } };
  const source = 'def handler(input):\n    import sys\n    return {"version": list(sys.version_info[:2])}\n';
  const execution = await execute(executions, {
    target: { case: 'code', value: { source, environment } },
    inputForm: { case: 'inputJson', value: '{}' },
  });
  expect(execution.outputJson, execution.error?.message).toMatch(/^\{"version":\[3,\d+\]\}$/);
  const value = { source: 'package main', language: 'go', environment };
  const missing = await execute(executions, { target: { case: 'code', value } });
  expect(missing.error).toMatchObject({
    code: Code.ENVIRONMENT_FAILED,
    message: 'no image is named, and this agent has none for go (HARRIER_AGENT_RUNNER_IMAGES)',
  });
});

test('code in Node.js runs in an image that has it', async () => {
  const image = imageWith('harrier-test/nodejs:1', dirname(dirname(realpathSync(process.execPath))), '/opt/node');
  const environment = { kind: { case: 'docker' as const, value: { image } } };
  const source = 'export const run = ({ name }) => { console.log("printed"); return { hello: name }; };';
  const execution = await execute(executions, {
    target: { case: 'code', value: { source, language: 'nodejs', handler: 'run', environment } },
    inputForm: { case: 'inputJson', value: '{"name":"you"}' },
  });
  expect(execution, execution.error?.message).toMatchObject({ outputJson: '{"hello":"you"}', stderrTail: 'printed\n' });
});

test('a command runs in an image', async () => {
  const execution = await execute(executions, inDocker('sh', '-c', 'echo $HOME; id -u'));
  expect(execution).toMatchObject({ state: State.SUCCEEDED, stdoutTail: '/tmp\n1000\n', exitCode: 0 });
});

test('the agent says what it can prepare, and what not while the engine is away', async () => {
  const supports = async () => (await onlyAgent()).environments.includes('docker');
  await until('docker to be available', supports);
  await stopDockerEngine();
  await until('docker to be unavailable', async () => !(await supports()));
  expect((await onlyAgent()).unavailableEnvironments.docker).toContain('Docker engine');
  await startDockerEngine();
  await until('docker to be available again', supports);
  const execution = await execute(executions, image(`${ANSWER}{}}))`));
  expect(execution.state, execution.error?.message).toBe(State.SUCCEEDED);
});

test('an agent that is killed finds its containers again', async () => {
  const agent = stack.agents[0];
  const script = `
import json, os, sys, time
n = 0
while not os.path.exists("/tmp/go"):
    n += 1
    print(n, file=sys.stderr, flush=True)
    time.sleep(0.002)
print(json.dumps({"ok": True, "output": {"n": n}}))`;
  const id = await create(executions, image(script));
  await until('some output', async () => (await get(executions, id)).stderrBytes > 100n || (await logged(id)) > 100);
  agent?.program.signal('SIGKILL');
  await agent?.program.exited;
  const before = await logged(id);
  agent?.startAgain();
  await until('output of the new agent', async () => (await logged(id)) > before + 200);
  const container = docker('ps', '--quiet', '--filter', `label=harrier.execution=${id}`);
  docker('exec', container, 'touch', '/tmp/go');
  const execution = await finished(executions, id);
  expect(execution, execution.error?.message).toMatchObject({ state: State.SUCCEEDED, attempt: 1 });
  const { n } = JSON.parse(execution.outputJson);
  const { stderr } = await storedLog(executions, id);
  expect(stderr.toString()).toBe(Array.from({ length: n }, (_, i) => `${i + 1}\n`).join(''));
});

async function logged(id: string): Promise<number> {
  return (await storedLog(executions, id)).stderr.length;
}

async function onlyAgent() {
  const { agents } = await stack.clients.agents.listAgents({});
  const [agent] = agents;
  if (agent === undefined) throw new Error('there is no agent');
  return agent;
}
