import { startStack } from '../support/stack.ts';
import { testContract } from './contract.ts';
import { pythonCode } from './subjects.ts';

const stack = await startStack();

testContract(stack, pythonCode({ kind: { case: 'inline', value: {} } }));
