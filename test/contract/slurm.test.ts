import { afterAll } from 'vitest';
import { TestSlurm } from '../support/slurm.ts';
import { startStack } from '../support/stack.ts';
import { directory } from '../support/workspace.ts';
import { testContract } from './contract.ts';
import { slurmJob } from './subjects.ts';

const slurm = await TestSlurm.start();
afterAll(() => slurm.stop());

const stack = await startStack({
  agents: [{ flags: ['--slurm-dir', directory('shared')], env: slurm.environment }],
});
testContract(stack, slurmJob());
