// `npm run demo`: installs what Harrier needs, starts it in a temporary directory, calls a module through gRPC, Connect and
// REST, shows what comes back and stops everything. Plain JavaScript for Node 20, until there is something installed.
import { runCommand, SetupError } from './lib/run-command.mjs';
import { ensureNodeModules, ensureSystemPackages } from './lib/setup.mjs';

const flags = process.argv.slice(2);
process.exitCode = await main();

async function main() {
  try {
    await ensureNodeModules();
    await ensureSystemPackages(flags.includes('--allow-unsandboxed') ? ['python3'] : ['python3', 'bubblewrap']);
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    process.stderr.write(`npm run demo: ${error.message}\n`);
    return 1;
  }
  // A Ctrl-C goes to the demo too, which then stops what it has started.
  process.on('SIGINT', () => {});
  return (await runCommand('node', ['scripts/demo/main.ts', ...flags])).code;
}
