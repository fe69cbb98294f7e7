import { startStack } from '../support/stack.ts';
import { testContract } from './contract.ts';

const stack = await startStack();

testContract({ stack, environment: { kind: { case: 'inline', value: {} } } });
