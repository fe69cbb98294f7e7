import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { removeWorkspace } from '../test/support/workspace.ts';
import { benchCore } from './core.ts';
import { benchEnvironments } from './environments.ts';
import { benchFleet } from './fleet.ts';
import { benchRecovery } from './recovery.ts';
import { benchScheduling } from './scheduling.ts';
import { benchWorkflows } from './workflows.ts';

// npm run bench [-- SUITE [PART…]]: measures, prints a table, and writes bench/out/FILE.json, a flat object of numbers.

interface Suite {
  /** Without a chosen part: all. */
  run: (python: string, parts: readonly string[]) => Promise<Record<string, number>>;
  /** Where the figures go; those of other suites that are there stay. */
  file: string;
}

const SUITES: Readonly<Record<string, Suite>> = {
  core: { run: benchCore, file: 'core' },
  environments: { run: benchEnvironments, file: 'environments' },
  recovery: { run: benchRecovery, file: 'recovery' },
  fleet: { run: benchFleet, file: 'recovery' },
  scheduling: { run: benchScheduling, file: 'scheduling' },
  workflows: { run: benchWorkflows, file: 'workflows' },
};

const name = process.argv[2] ?? 'core';
const suite = SUITES[name];
if (suite === undefined) {
  process.stderr.write(`bench: there is no suite "${name}"; choose one of ${Object.keys(SUITES).join(', ')}\n`);
  process.exit(2);
}
// The interpreter itself: a python3 on PATH may be a shim that starts slowly.
const python = execFileSync('python3', ['-c', 'import sys; print(sys.executable)'], { encoding: 'utf8' }).trim();
const parts = process.argv.slice(3);
const figures = await suite.run(python, parts);
removeWorkspace();
const rounded = Object.fromEntries(Object.entries(figures).map(([of, value]) => [of, Number(value.toPrecision(4))]));
const directory = fileURLToPath(new URL('./out', import.meta.url));
const path = `${directory}/${suite.file}.json`;
mkdirSync(directory, { recursive: true });
const shared = Object.values(SUITES).filter(({ file }) => file === suite.file).length > 1;
// What was not measured now stays as it was.
const others = (shared || parts.length > 0) && existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : {};
writeFileSync(path, `${JSON.stringify({ ...others, ...rounded }, undefined, 2)}\n`);
const width = Math.max(...Object.keys(rounded).map((of) => of.length));
for (const [of, value] of Object.entries(rounded)) process.stdout.write(`${of.padEnd(width)}  ${value}\n`);
