import { startStack } from '../support/stack.ts';
import { testProbes } from './probes.ts';
import { pythonCode } from './subjects.ts';

testProbes(await startStack(), pythonCode('inline'));
