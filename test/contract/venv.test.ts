import { create } from '@bufbuild/protobuf';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { EnvironmentSchema } from '@harrier/shared/gen/module';
import { expect, test } from 'vitest';
import { execute } from '../support/executions.ts';
import { startStack } from '../support/stack.ts';
import { testContract } from './contract.ts';
import { pythonCode } from './subjects.ts';

const stack = await startStack();
const environment = create(EnvironmentSchema, { kind: { case: 'venv', value: { requirements: ['six==1.17.0'] } } });

test('its packages are installed when it is first used', async () => {
  const source = 'import six, sys\ndef handler(input):\n    return {"six": six.__version__, "prefix": sys.prefix}\n';
  const execution = await execute(stack.executions, { target: { case: 'code', value: { source, environment } } });
  expect(execution.state, execution.error?.message).toBe(State.SUCCEEDED);
  expect(execution.output).toEqual({ six: '1.17.0', prefix: '/environment' });
  expect(execution.stderrTail).toContain('six==1.17.0');
});

testContract(stack, pythonCode(environment));
