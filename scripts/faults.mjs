// Breaks Harrier in every way that it has to survive, and audits it: `npm run faults`. docs/faults.md
import { preparedRun } from './lib/prepared-run.mjs';
import { ensureSystemPackages } from './lib/setup.mjs';

/** For faults that take root: networks, clocks, an engine. */
const OF_ROOT = ['iproute2', 'iptables', 'libfaketime', 'docker.io', 'debootstrap'];
const PACKAGES = ['python3', 'bubblewrap', 'postgresql', ...(process.getuid?.() === 0 ? OF_ROOT : [])];

const argv = ['faults/main.ts', ...process.argv.slice(2)];
process.exitCode = await preparedRun('npm run faults', () => ensureSystemPackages(PACKAGES), argv);
