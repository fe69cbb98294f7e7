import { DOCKER_SOCKET, PYTHON_IMAGE, startDockerEngine } from '../support/docker-engine.ts';
import { startStack } from '../support/stack.ts';
import { testContract } from './contract.ts';
import { imageOf } from './subjects.ts';

await startDockerEngine();
const env = { HARRIER_AGENT_DOCKER_HOST: `unix://${DOCKER_SOCKET}`, HARRIER_AGENT_ALLOWED_IMAGES: 'harrier-test/*' };
const stack = await startStack({ agents: [{ env }] });

testContract(stack, imageOf(PYTHON_IMAGE));
