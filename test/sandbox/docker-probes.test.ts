import { DOCKER_SOCKET, PYTHON_IMAGE, startDockerEngine } from '../support/docker-engine.ts';
import { execute } from '../support/executions.ts';
import { startStack } from '../support/stack.ts';
import { testProbes } from './probes.ts';
import { environmentOf, expectSuccess, pythonCode } from './subjects.ts';

await startDockerEngine();
const env = { HARRIER_AGENT_DOCKER_HOST: `unix://${DOCKER_SOCKET}`, HARRIER_AGENT_ALLOWED_IMAGES: 'harrier-test/*' };
const stack = await startStack({ agents: [{ env }] });
const environment = environmentOf({ case: 'docker', value: { image: PYTHON_IMAGE } as never });

// The probes begin when there is a warm container.
const source = 'def handler(input):\n    return {}\n';
expectSuccess(await execute(stack.executions, { target: { case: 'code', value: { source, environment } } }));

testProbes(stack, pythonCode('docker, Python', environment));
