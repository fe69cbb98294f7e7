import { startStack } from '../support/stack.ts';
import { testContract } from './contract.ts';
import { pythonCommand } from './subjects.ts';

testContract(await startStack(), pythonCommand());
