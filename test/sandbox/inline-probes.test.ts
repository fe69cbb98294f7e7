import { startStack } from '../support/stack.ts';
import { testProbes } from './probes.ts';

const stack = await startStack();

testProbes({ stack, environment: { kind: { case: 'inline', value: {} } } });
