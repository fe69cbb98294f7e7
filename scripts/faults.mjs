// Breaks Harrier in every way that it has to survive, and audits it: `npm run faults`. docs/faults.md
import { runCommand, SetupError } from './lib/run-command.mjs';
import { ensureNodeModules, ensureSystemPackages, toolsPath } from './lib/setup.mjs';

/** For faults that take root: networks, clocks, an engine. */
const OF_ROOT = ['iproute2', 'iptables', 'libfaketime', 'docker.io', 'debootstrap'];

process.exitCode = await main();

async function main() {
  try {
    await ensureNodeModules();
    await ensureSystemPackages(['python3', 'bubblewrap', 'postgresql', ...(process.getuid?.() === 0 ? OF_ROOT : [])]);
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    process.stderr.write(`npm run faults: ${error.message}\n`);
    return 1;
  }
  const { code } = await runCommand('node', ['faults/main.ts', ...process.argv.slice(2)], {
    env: { PATH: toolsPath() },
  });
  return code;
}
