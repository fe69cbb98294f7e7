import { condaChannel } from '../support/conda-channel.ts';
import { execute } from '../support/executions.ts';
import { startStack } from '../support/stack.ts';
import { testProbes } from './probes.ts';
import { environmentOf, expectSuccess, pythonCode } from './subjects.ts';

const channel = condaChannel();
const stack = await startStack({ agents: [{ env: { HARRIER_AGENT_ALLOWED_CHANNELS: channel } }] });
const environment = environmentOf({ case: 'conda', value: { dependencies: ['python'], channels: [channel] } as never });

// The probes begin when it is built.
const source = 'def handler(input):\n    return {}\n';
expectSuccess(await execute(stack.executions, { target: { case: 'code', value: { source, environment } } }));

testProbes(stack, pythonCode('conda', environment));
