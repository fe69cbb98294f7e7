import { startStack } from '../support/stack.ts';
import { testProbes } from './probes.ts';
import { pythonCommand } from './subjects.ts';

testProbes(await startStack(), pythonCommand());
