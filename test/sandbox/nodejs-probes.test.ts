import { startStack } from '../support/stack.ts';
import { testProbes } from './probes.ts';
import { nodejsCode } from './subjects.ts';

testProbes(await startStack(), nodejsCode());
