import { runCommand, SetupError } from './run-command.mjs';
import { ensureNodeModules, toolsPath } from './setup.mjs';

/**
 * Runs a program of this repository with what it needs, which is installed first.
 * @param name as people call it, for what they are told when something cannot be installed
 * @param prepare installs what is needed beside Node's modules
 * @returns the exit code
 */
export async function preparedRun(name, prepare, argv) {
  try {
    await ensureNodeModules();
    await prepare();
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    process.stderr.write(`${name}: ${error.message}\n`);
    return 1;
  }
  const { code } = await runCommand('node', argv, { env: { PATH: toolsPath() } });
  return code;
}
