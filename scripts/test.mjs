// Runs every test: `npm test`. What it needs it installs first, or stops with the command that does.
// `npm test -- unit`, `python` or `e2e` runs one part.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { runCommand, SetupError } from './lib/run-command.mjs';
import {
  ensureGoTools,
  ensureKubernetesSchemas,
  ensureNodeModules,
  ensurePythonTools,
  ensureSystemPackages,
  SYSTEM_PACKAGES,
} from './lib/setup.mjs';

/** Of what a test failed with, as much as tells what was expected and seen, and where. */
const MESSAGE_LINES = 12;
const MESSAGE_LINE_LENGTH = 300;

const scratch = mkdtempSync(join(tmpdir(), 'harrier-test-'));
const PARTS = {
  unit: () => vitest('unit', ['--coverage', `--coverage.reportsDirectory=${join(scratch, 'coverage')}`]),
  python,
  e2e: () => vitest('e2e'),
};

process.exitCode = await main().finally(() => rmSync(scratch, { recursive: true, force: true }));

async function main() {
  const chosen = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(PARTS);
  const unknown = chosen.find((part) => !Object.hasOwn(PARTS, part));
  if (unknown !== undefined) return fail(`there is no part "${unknown}"; there are ${Object.keys(PARTS).join(', ')}`);
  const problem = await setupProblem(async () => {
    await ensureNodeModules();
    await ensureSystemPackages(Object.keys(SYSTEM_PACKAGES));
    await ensurePythonTools();
  });
  if (problem !== undefined) return fail(problem);
  // On a new machine they are compiled for minutes. Only the end-to-end tests need them, which come last.
  const compiled = chosen.includes('e2e') ? setupProblem(ensureEndToEndTools) : undefined;
  let passed = 0;
  let failed = 0;
  const names = [];
  for (const part of chosen) {
    if (part === 'e2e') {
      const problem = await compiled;
      if (problem !== undefined) return fail(problem);
    }
    const result = await PARTS[part]();
    passed += result.passed;
    failed += result.failed;
    names.push(...result.names.map((name) => `failed: ${part} ${name}\n`));
  }
  // Where only the end of the output is kept it says all the same what failed.
  process.stdout.write(`\n${names.join('')}${passed} passed, ${failed} failed\n`);
  return failed === 0 && passed > 0 ? 0 : 1;
}

async function ensureEndToEndTools() {
  await ensureGoTools();
  await ensureKubernetesSchemas();
}

/** @returns what keeps the tests from going on, or undefined */
async function setupProblem(ensure) {
  try {
    await ensure();
  } catch (error) {
    if (error instanceof SetupError) return error.message;
    throw error;
  }
}

/** A test that was skipped counts as failed: whoever reads the last line must be able to rely on it. */
async function vitest(project, options = []) {
  const report = join(scratch, `${project}.json`);
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const { code } = await runCommand('vitest', ['run', '--project', project, ...reporters, ...options]);
  let passed = 0;
  const names = [];
  try {
    for (const file of JSON.parse(readFileSync(report, 'utf8')).testResults) {
      const path = relative('.', file.name);
      const bad = file.assertionResults.filter(({ status }) => status !== 'passed');
      passed += file.assertionResults.length - bad.length;
      names.push(...bad.map((test) => `${path} > ${test.fullName} (${test.status})${why(test.failureMessages)}`));
      // A file can fail although its tests pass: when it cannot be loaded, or leaves something behind.
      if (bad.length === 0 && file.status !== 'passed') names.push(`${path} as a whole`);
    }
  } catch (error) {
    process.stderr.write(`the report of the ${project} tests cannot be read: ${error}\n`);
  }
  if (code !== 0 && names.length === 0) names.push(`as a whole: vitest ended with exit code ${code}`);
  return { passed, failed: names.length, names };
}

/** The first lines of what a test failed with, indented. */
function why(messages) {
  const lines = stripVTControlCharacters((messages ?? []).join('\n')).split('\n', MESSAGE_LINES);
  return lines.map((line) => (line.trim() === '' ? '' : `\n    ${line.slice(0, MESSAGE_LINE_LENGTH)}`)).join('');
}

async function python() {
  const args = ['-m', 'unittest', 'discover', '-v', '-s', 'agent/runtime/tests'];
  const { code, output } = await runCommand('python3', args, { capture: true });
  // What remains names the tests that were skipped, with the reason.
  process.stderr.write(output.replaceAll(/^(?:\w+ \([\w.]+\)\n)?.* \.\.\. ok\n/gm, ''));
  const count = (pattern) => Number(output.match(pattern)?.[1] ?? 0);
  const skipped = count(/skipped=(\d+)/);
  const bad = count(/failures=(\d+)/) + count(/errors=(\d+)/);
  const failed = code !== 0 ? Math.max(bad, 1) : bad;
  const names = [...output.matchAll(/^(?:FAIL|ERROR): (.+)$/gm)].map(([, name]) => name);
  return { passed: Math.max(0, count(/^Ran (\d+) tests?/m) - bad - skipped), failed, names };
}

function fail(message) {
  process.stderr.write(`npm test: ${message}\n`);
  return 1;
}
