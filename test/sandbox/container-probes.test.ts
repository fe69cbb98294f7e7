import { DOCKER_SOCKET, PYTHON_IMAGE, startDockerEngine } from '../support/docker-engine.ts';
import { startStack } from '../support/stack.ts';
import { testProbes } from './probes.ts';
import { containerOfImage } from './subjects.ts';

await startDockerEngine();
const env = { HARRIER_AGENT_DOCKER_HOST: `unix://${DOCKER_SOCKET}`, HARRIER_AGENT_ALLOWED_IMAGES: 'harrier-test/*' };
const stack = await startStack({ agents: [{ env }] });

testProbes(stack, containerOfImage(PYTHON_IMAGE));
