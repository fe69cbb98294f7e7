// Measures Harrier: `npm run bench`, or one suite of it. docs/performance.md
import { preparedRun } from './lib/prepared-run.mjs';
import { ensurePythonTools, ensureSystemPackages, SYSTEM_PACKAGES } from './lib/setup.mjs';

async function prepare() {
  await ensureSystemPackages(Object.keys(SYSTEM_PACKAGES));
  await ensurePythonTools();
}

process.exitCode = await preparedRun('npm run bench', prepare, ['bench/main.ts', ...process.argv.slice(2)]);
