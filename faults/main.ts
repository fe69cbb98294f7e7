import { parseArgs } from 'node:util';
import { removeWorkspace } from '../test/support/workspace.ts';
import { FAULTS } from './faults/table.ts';
import { runRound } from './machine.ts';
import { makePlan } from './plan.ts';
import { isClean, renderTable, summarize } from './report.ts';
import { World } from './world/world.ts';

// npm run faults -- --seed N --executions N [--fault NAME]...: docs/faults.md

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
    executions: { type: 'string', default: '2000' },
    fault: { type: 'string', multiple: true, default: Object.keys(FAULTS) },
  },
});
process.exitCode = await main(Number(values.seed), Number(values.executions), values.fault);

async function main(seed: number, executions: number, faults: readonly string[]): Promise<number> {
  const unknown = faults.find((name) => !Object.hasOwn(FAULTS, name));
  if (unknown !== undefined) {
    process.stderr.write(`faults: there is no fault "${unknown}"; there are ${Object.keys(FAULTS).join(', ')}\n`);
    return 2;
  }
  const rounds = makePlan({ seed, executions, faults, kinds: ['inline', 'command', 'venv'] });
  process.stdout.write(`seed ${seed}: ${executions} executions in ${rounds.length} rounds\n`);
  const world = await World.start({ replicas: 2, agents: 3 });
  const verdicts = [];
  for (const round of rounds) {
    const fault = FAULTS[round.fault];
    if (fault === undefined) continue;
    const verdict = await runRound(world, round, fault);
    verdicts.push(verdict);
    process.stdout.write(
      `${new Date().toISOString()} round ${round.number} ${round.fault}: ${verdict.findings.length} findings\n`,
    );
    for (const { offence, count, message } of verdict.findings)
      process.stdout.write(`  ${offence} ${count}: ${message}\n`);
  }
  const left = await world.stop();
  for (const text of left) process.stdout.write(`stayed: ${text}\n`);
  removeWorkspace();
  const summaries = summarize(verdicts);
  process.stdout.write(`\n${renderTable(summaries)}`);
  return isClean(summaries) && left.length === 0 ? 0 : 1;
}
