import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { afterAll, expect, test } from 'vitest';
import { buildImage, DOCKER_SOCKET, docker, PYTHON_IMAGE, startDockerEngine } from '../support/docker-engine.ts';
import { DockerRegistry } from '../support/docker-registry.ts';
import { execute, storedLog } from '../support/executions.ts';
import { startStack } from '../support/stack.ts';

await startDockerEngine();
const registry = await DockerRegistry.start();
afterAll(() => registry.stop());
const env = {
  HARRIER_AGENT_DOCKER_HOST: `unix://${DOCKER_SOCKET}`,
  HARRIER_AGENT_ALLOWED_IMAGES: `${registry.address}/*`,
};
/** Allows what a tag names, and no digest. */
const byTag = { ...env, HARRIER_AGENT_ALLOWED_IMAGES: `${registry.address}/*:1` };
const stack = await startStack({
  agents: [
    { labels: { n: '1' }, env },
    { labels: { n: '2' }, env },
    { labels: { n: '3' }, env: byTag },
  ],
});
const { executions } = stack;
const NAME = `${registry.address}/moving:1`;
const SOURCE = 'def handler(input):\n    return {"text": open("/text").read().strip()}\n';

/** Pushes a new image under the name, and leaves nothing of it in the engine. */
function push(text: string): void {
  const own = `harrier-test/lock:${text}`;
  buildImage(own, `FROM ${PYTHON_IMAGE}\nRUN echo ${text} > /text\n`);
  registry.push(own, 'moving:1');
  docker('image', 'rm', '--force', own);
}

async function run(n: string, version: string) {
  const execution = await execute(executions, {
    target: { case: 'module', value: 'locked' },
    version,
    inputForm: { case: 'inputJson', value: '{}' },
    agentSelector: `n=${n}`,
  });
  expect(execution.state, execution.error?.message).toBe(State.SUCCEEDED);
  return {
    text: JSON.parse(execution.outputJson).text,
    log: (await storedLog(executions, execution.id)).stderr.toString(),
  };
}

async function createVersion(version: string): Promise<void> {
  const environment = { kind: { case: 'docker' as const, value: { image: NAME } } };
  await stack.modules.createModule({ module: { name: 'locked', version, code: SOURCE, environment } });
}

test('every agent runs the image that the first one found for a version, whatever its tag names by then', async () => {
  push('old');
  await createVersion('1.0.0');
  const first = await run('1', '1.0.0');
  expect(first.text).toBe('old');
  expect(first.log).toMatch(new RegExp(`^pulling ${NAME}\n`));
  docker('image', 'rm', '--force', NAME);
  push('new');
  docker('pull', '--quiet', NAME);
  expect((await run('2', '1.0.0')).text).toBe('old');
  await createVersion('2.0.0');
  expect((await run('2', '2.0.0')).text).toBe('new');
  expect((await run('1', '1.0.0')).text).toBe('old');
});

test('an agent that allows tags alone runs what was decided for a version, and not what a caller says was', async () => {
  push('first');
  await createVersion('3.0.0');
  expect((await run('1', '3.0.0')).text).toBe('first');
  const { module } = await stack.modules.getModule({ name: 'locked', version: '3.0.0' });
  const image = module?.environment?.kind.case === 'docker' ? module.environment.kind.value.image : '';
  expect(image).toMatch(/moving:1@sha256:/);
  docker('image', 'rm', '--force', NAME);
  push('second');
  docker('pull', '--quiet', NAME);
  const environment = { kind: { case: 'docker' as const, value: { image } } };
  const said = { target: { case: 'code' as const, value: { source: SOURCE, environment } }, agentSelector: 'n=3' };
  expect(await execute(executions, said)).toMatchObject({ error: { code: Code.POLICY_DENIED } });
  expect((await run('3', '3.0.0')).text).toBe('first');
});
