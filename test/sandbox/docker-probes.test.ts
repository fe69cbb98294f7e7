import { create } from '@bufbuild/protobuf';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { EnvironmentSchema } from '@harrier/shared/gen/module';
import { expect } from 'vitest';
import { DOCKER_SOCKET, PYTHON_IMAGE, startDockerEngine } from '../support/docker-engine.ts';
import { execute } from '../support/executions.ts';
import { startStack } from '../support/stack.ts';
import { testProbes } from './probes.ts';

await startDockerEngine();
const env = { HARRIER_AGENT_DOCKER_HOST: `unix://${DOCKER_SOCKET}`, HARRIER_AGENT_ALLOWED_IMAGES: 'harrier-test/*' };
const stack = await startStack({ agents: [{ env }] });
const environment = create(EnvironmentSchema, { kind: { case: 'docker', value: { image: PYTHON_IMAGE } } });

// The probes begin when there is a warm container.
const source = 'def handler(input):\n    return {}\n';
const first = await execute(stack.executions, { target: { case: 'code', value: { source, environment } } });
expect(first.state, first.error?.message).toBe(State.SUCCEEDED);

testProbes({ stack, environment });
