import { create } from '@bufbuild/protobuf';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { EnvironmentSchema } from '@harrier/shared/gen/module';
import { expect } from 'vitest';
import { execute } from '../support/executions.ts';
import { startStack } from '../support/stack.ts';
import { testProbes } from './probes.ts';

const stack = await startStack();
const environment = create(EnvironmentSchema, { kind: { case: 'venv', value: { requirements: ['six==1.17.0'] } } });

// The probes begin when it is built.
const source = 'def handler(input):\n    return {}\n';
const first = await execute(stack.executions, { target: { case: 'code', value: { source, environment } } });
expect(first.state, first.error?.message).toBe(State.SUCCEEDED);

testProbes({ stack, environment });
