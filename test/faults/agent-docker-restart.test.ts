import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { DOCKER_SOCKET, docker, PYTHON_IMAGE, startDockerEngine } from '../support/docker-engine.ts';
import { create, finished, get, untilPrinted } from '../support/executions.ts';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';

await startDockerEngine();

const stack = await startStack({
  agents: [
    {
      env: {
        HARRIER_AGENT_DOCKER_HOST: `unix://${DOCKER_SOCKET}`,
        HARRIER_AGENT_ALLOWED_IMAGES: 'harrier-test/*',
        HARRIER_AGENT_MAX_CONTAINERS: '1',
      },
    },
  ],
});
const { executions } = stack;
const [agent] = stack.agents;
if (agent === undefined) throw new Error('there is no agent');

const UNTIL_TOLD = 'echo up; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo done';

function inContainer(script: string) {
  const environment = { kind: { case: 'docker' as const, value: { image: PYTHON_IMAGE } } };
  return {
    target: { case: 'command' as const, value: { argv: ['sh', '-c', script], environment } },
    // What runs twice, or is lost, fails for good.
    retryPolicy: { maxAttempts: 1 },
  };
}

test('an agent that is killed while a call waits for a place among the containers gives it back, and goes on with what runs', async () => {
  const runs = await create(executions, inContainer(UNTIL_TOLD));
  await untilPrinted(executions, runs, 'up');
  const waits = await create(executions, inContainer('echo ran'));
  const facts = join(agent.dataDirectory, 'containers', `${waits}.1`, 'facts.json');
  await until('the second call to be with the agent', () => existsSync(facts));
  await agent.stop('SIGKILL');
  agent.startAgain();
  const again = await until('the second call to be given back', async () => {
    const execution = await get(executions, waits);
    return execution.attempts.length > 0 && execution;
  });
  expect(again.attempts[0]).toMatchObject({
    number: 1,
    error: { code: Code.SUBMIT_FAILED, message: expect.stringContaining('restarted before it had started') },
  });
  expect(again.attempts[0]?.startTime).toBeUndefined();
  docker('exec', containerOf(runs), 'touch', '/tmp/go');
  expect(await finished(executions, runs)).toMatchObject({ state: State.SUCCEEDED, attempt: 1 });
  expect(await finished(executions, waits)).toMatchObject({ state: State.SUCCEEDED, attempt: 2, stdoutTail: 'ran\n' });
});

function containerOf(id: string): string {
  return docker('ps', '--quiet', '--filter', `label=harrier.execution=${id}`);
}
