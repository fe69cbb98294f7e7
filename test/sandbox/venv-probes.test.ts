import { execute } from '../support/executions.ts';
import { startStack } from '../support/stack.ts';
import { testProbes } from './probes.ts';
import { environmentOf, expectSuccess, pythonCode } from './subjects.ts';

const stack = await startStack();
const environment = environmentOf({ case: 'venv', value: { requirements: ['six==1.17.0'] } as never });

// The probes begin when it is built.
const source = 'def handler(input):\n    return {}\n';
expectSuccess(await execute(stack.executions, { target: { case: 'code', value: { source, environment } } }));

testProbes(stack, pythonCode('venv', environment));
