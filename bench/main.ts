import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { removeWorkspace } from '../test/support/workspace.ts';
import { benchCore } from './core.ts';
import { benchEnvironments } from './environments.ts';

// npm run bench [-- core | environments [PART…]]: measures, prints a table, and writes bench/out/<suite>.json, a flat object of numbers.

const SUITES: Readonly<Record<string, (python: string, parts: readonly string[]) => Promise<Record<string, number>>>> =
  {
    core: benchCore,
    environments: benchEnvironments,
  };

const suite = process.argv[2] ?? 'core';
const run = SUITES[suite];
if (run === undefined) {
  process.stderr.write(`bench: there is no suite "${suite}"; choose one of ${Object.keys(SUITES).join(', ')}\n`);
  process.exit(2);
}
// The interpreter itself: a python3 on PATH may be a shim that starts slowly.
const python = execFileSync('python3', ['-c', 'import sys; print(sys.executable)'], { encoding: 'utf8' }).trim();
const figures = await run(python, process.argv.slice(3));
removeWorkspace();
const rounded = Object.fromEntries(
  Object.entries(figures).map(([name, value]) => [name, Number(value.toPrecision(4))]),
);
const directory = fileURLToPath(new URL('./out', import.meta.url));
mkdirSync(directory, { recursive: true });
writeFileSync(`${directory}/${suite}.json`, `${JSON.stringify(rounded, undefined, 2)}\n`);
const width = Math.max(...Object.keys(rounded).map((name) => name.length));
for (const [name, value] of Object.entries(rounded)) process.stdout.write(`${name.padEnd(width)}  ${value}\n`);
