import { join } from 'node:path';
import { expect, test } from 'vitest';
import { FAULTS } from '../../faults/faults/table.ts';
import { runProgram } from '../support/program.ts';
import { directory, environment, REPOSITORY, temporaryLeftovers } from '../support/workspace.ts';

const OPTIONS = 'the options are --seed, --executions, --fault';

/** What is wrong, and what is said of it. */
const WRONG: readonly (readonly [string[], string])[] = [
  [['--bogus'], `Unknown option '--bogus'; ${OPTIONS}`],
  [['more'], `Unexpected argument 'more'. This command does not take positional arguments; ${OPTIONS}`],
  [['--seed'], `Option '--seed <value>' argument missing; ${OPTIONS}`],
  [
    ['--fault', '--seed'],
    "Option '--fault' argument is ambiguous. Did you forget to specify the option argument for '--fault'? " +
      `To specify an option argument starting with a dash use '--fault=-XYZ'; ${OPTIONS}`,
  ],
  [['--seed='], '--seed must be a whole number, not ""'],
  [['--executions', '0'], '--executions must be a whole number from 1, not "0"'],
  [['--fault', 'bogus'], `there is no fault "bogus"; there are ${Object.keys(FAULTS).join(', ')}`],
];

test.each(WRONG)('what is wrong with %j is said in one line, and nothing is begun', async (args, said) => {
  const argv = [process.execPath, join(REPOSITORY, 'faults/main.ts'), ...args] as const;
  const ended = await runProgram({ argv, env: environment(), stderrFile: join(directory('said'), 'stderr') });
  expect(ended).toEqual({ code: 2, signal: null, stdout: '', stderr: `faults: ${said}\n` });
  expect(temporaryLeftovers()).toEqual([]);
});
