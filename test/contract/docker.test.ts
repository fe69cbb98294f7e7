import { DOCKER_SOCKET, PYTHON_IMAGE, startDockerEngine } from '../support/docker-engine.ts';
import { startStack } from '../support/stack.ts';
import { testContract } from './contract.ts';
import { pythonCode } from './subjects.ts';

await startDockerEngine();

const stack = await startStack({
  agents: [
    { env: { HARRIER_AGENT_DOCKER_HOST: `unix://${DOCKER_SOCKET}`, HARRIER_AGENT_ALLOWED_IMAGES: 'harrier-test/*' } },
  ],
});
const environment = { kind: { case: 'docker' as const, value: { image: PYTHON_IMAGE } } };

testContract(stack, pythonCode(environment));
