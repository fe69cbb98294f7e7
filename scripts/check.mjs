// Everything that can be said of the sources without running them: `npm run check`.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT, runCommand, SetupError } from './lib/run-command.mjs';
import { ensureNodeModules, ensurePythonTools, ensureShellcheck, ensureSystemPackages } from './lib/setup.mjs';

const RUFF = join(ROOT, '.venv', 'bin', 'ruff');
const PYTHON_SOURCES = ['agent/runtime', 'bench', 'deploy', 'examples', 'faults', 'test'];
const SHELLCHECK = join(ROOT, '.venv', 'bin', 'shellcheck');
const SHELL_SCRIPTS = ['deploy/agent/install.sh'];
const IMPORTING = ['shared/src', 'control-plane/src', 'agent/src', 'cli/src', 'faults'];

const CHECKS = {
  'format and lint': () => runCommand('biome', ['ci', '--colors=off', '--error-on-warnings', '.'], { capture: true }),
  types: () => runCommand('tsc', ['-p', 'tsconfig.json'], { capture: true }),
  'import table': () => runCommand('depcruise', IMPORTING, { capture: true }),
  'dead code': () => runCommand('knip', ['--no-config-hints'], { capture: true }),
  schema: () => runCommand('buf', ['lint'], { capture: true }),
  'schema format': () =>
    runCommand('buf', ['format', '--diff', '--exit-code', '--path', 'proto/harrier'], { capture: true }),
  'generated code': checkGenerated,
  'Python lint': () => runCommand(RUFF, ['check', '--no-cache', ...PYTHON_SOURCES], { capture: true }),
  'Python format': () => runCommand(RUFF, ['format', '--no-cache', '--check', ...PYTHON_SOURCES], { capture: true }),
  'shell scripts': () => runCommand(SHELLCHECK, ['--shell=sh', ...SHELL_SCRIPTS], { capture: true }),
};

process.exitCode = await main();

async function main() {
  try {
    await ensureNodeModules();
    await ensureSystemPackages(['python3', 'python3-venv']);
    await ensurePythonTools();
    await ensureShellcheck();
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    process.stderr.write(`npm run check: ${error.message}\n`);
    return 1;
  }
  let failed = 0;
  for (const [name, check] of Object.entries(CHECKS)) {
    const { code, output } = await check();
    process.stdout.write(`${code === 0 ? 'ok    ' : 'FAILED'} ${name}\n`);
    if (code === 0) continue;
    failed++;
    process.stdout.write(`${output}\n`);
  }
  return failed === 0 ? 0 : 1;
}

/** The committed code must be what the schema generates. */
async function checkGenerated() {
  const scratch = mkdtempSync(join(tmpdir(), 'harrier-gen-'));
  try {
    const generated = await runCommand('buf', ['generate', '--output', scratch], { capture: true });
    if (generated.code !== 0) return generated;
    return await runCommand('diff', ['-r', join(scratch, 'shared/src/gen'), 'shared/src/gen'], { capture: true });
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}
