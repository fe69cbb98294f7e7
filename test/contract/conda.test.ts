import { create } from '@bufbuild/protobuf';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { EnvironmentSchema } from '@harrier/shared/gen/module';
import { expect, test } from 'vitest';
import { condaChannel } from '../support/conda-channel.ts';
import { execute } from '../support/executions.ts';
import { startStack } from '../support/stack.ts';
import { testContract } from './contract.ts';
import { pythonCode } from './subjects.ts';

const channel = condaChannel();
const stack = await startStack({ agents: [{ env: { HARRIER_AGENT_ALLOWED_CHANNELS: channel } }] });
const value = { dependencies: ['python', 'greeter'], channels: [channel] };
const environment = create(EnvironmentSchema, { kind: { case: 'conda', value } });

test('its packages are solved and installed when it is first used', async () => {
  const source =
    'import greeter, sys\ndef handler(input):\n    return {"says": greeter.greet("you"), "prefix": sys.prefix}\n';
  const execution = await execute(stack.executions, { target: { case: 'code', value: { source, environment } } });
  expect(execution.state, execution.error?.message).toBe(State.SUCCEEDED);
  expect(execution.output).toEqual({ says: 'hello you', prefix: '/environment' });
});

testContract(stack, pythonCode(environment));
