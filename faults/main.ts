import { parseArgs } from 'node:util';
import { messageOf } from '@harrier/shared';
import { removeWorkspace } from '../test/support/workspace.ts';
import type { Kind } from './execution-plan.ts';
import { FAULTS } from './faults/table.ts';
import { runMachine } from './machine.ts';
import { missingOf } from './needs.ts';
import { makePlan } from './plan.ts';
import { isClean, neverStruck, renderTable, summarize } from './report.ts';

// npm run faults -- --seed N --executions N [--fault NAME]…: docs/faults.md

const DEFAULT_EXECUTIONS = 2_000;
const EXIT_USAGE = 2;

// Not by itself: with thousands of children behind it, Node.js 24 was seen to wait for ever while it tidied up.
process.exit(await main());

async function main(): Promise<number> {
  const options = readOptions();
  if (typeof options === 'string') {
    process.stderr.write(`faults: ${options}\n`);
    removeWorkspace();
    return EXIT_USAGE;
  }
  const { seed, executions, faults } = options;
  const docker = missingOf(['docker']).length === 0;
  const kinds: Kind[] = ['inline', 'command', 'venv', ...(docker ? (['docker', 'container'] as const) : [])];
  const rounds = makePlan({ seed, executions, faults, kinds });
  say(`seed ${seed}: ${executions} executions in ${rounds.length} rounds, of ${kinds.join(', ')}`);
  // Not SIGINT: a terminal sends that to the replicas and agents as well.
  const stopping = new AbortController();
  process.once('SIGTERM', () => stopping.abort());
  const { verdicts, left } = await runMachine({ rounds, docker, say, signal: stopping.signal });
  removeWorkspace();
  for (const text of left) say(`stayed when all was stopped: ${text}`);
  const summaries = summarize(verdicts);
  say(`\n${renderTable(summaries)}`);
  const missed = neverStruck(summaries);
  for (const fault of missed) say(`${fault} had nothing to hit in any of its rounds: nothing is known of it`);
  return isClean(summaries) && missed.length === 0 && left.length === 0 ? 0 : 1;
}

/** @returns what is wrong, as a text */
function readOptions(): { seed: number; executions: number; faults: string[] } | string {
  const values = parseOptions();
  if (typeof values === 'string') return values;
  // An empty text is no number here.
  const [seed, executions] = [Number(values.seed || Number.NaN), Number(values.executions || Number.NaN)];
  if (!Number.isSafeInteger(seed)) return `--seed must be a whole number, not "${values.seed}"`;
  if (!Number.isSafeInteger(executions) || executions < 1) {
    return `--executions must be a whole number from 1, not "${values.executions}"`;
  }
  const faults: string[] = [];
  for (const name of values.fault ?? Object.keys(FAULTS)) {
    const fault = Object.hasOwn(FAULTS, name) ? FAULTS[name] : undefined;
    if (fault === undefined) return `there is no fault "${name}"; there are ${Object.keys(FAULTS).join(', ')}`;
    const missing = missingOf(fault.needs).join(', ');
    if (missing === '') faults.push(name);
    else if (values.fault !== undefined) return `${name} cannot be done here; it needs: ${missing}`;
    else say(`left out: ${name}, which needs: ${missing}`);
  }
  return { seed, executions, faults };
}

/** @returns as `readOptions` */
function parseOptions() {
  const options = {
    seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
    executions: { type: 'string', default: String(DEFAULT_EXECUTIONS) },
    fault: { type: 'string', multiple: true },
  } as const;
  try {
    return parseArgs({ options }).values;
  } catch (error) {
    // Some of its messages are several sentences, each in a line.
    const wrong = messageOf(error).replaceAll('\n', ' ').replace(/\.$/, '');
    const names = Object.keys(options).map((name) => `--${name}`);
    return `${wrong}; the options are ${names.join(', ')}`;
  }
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
