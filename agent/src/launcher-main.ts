import { HarrierError, messageOf } from '@harrier/shared';
import { ConfigError, readConfig, startEnvironment } from './config.ts';
import { serviceCommand } from './launcher/start-launcher.ts';
import { launcherOptionsOf } from './launcher-options.ts';

/** Exit codes of sysexits.h: EX_CONFIG is one that a restart does not help. */
const EXIT = { failed: 1, settings: 78 } as const;

/**
 * Becomes the launcher of the agent with the same variables, under this process's number: for service managers, which keep the
 * launcher in a unit of its own, so that the agent's can be restarted and watched without what runs.
 * @returns the exit code, when it cannot
 */
async function becomeLauncher(): Promise<number> {
  try {
    const { HARRIER_JOIN_TOKEN: _, ...environment } = startEnvironment();
    const { file, args } = serviceCommand(await launcherOptionsOf(readConfig({})));
    if (process.execve === undefined) {
      throw new HarrierError('failed_precondition', `${process.platform} cannot replace a process by another program`);
    }
    // It is the launcher that says when it is ready: the variables of systemd go on to it.
    return process.execve(file, [file, ...args], environment);
  } catch (error) {
    const text = error instanceof ConfigError ? error.problems.join('\nharrier launcher: ') : messageOf(error);
    process.stderr.write(`harrier launcher: ${text}\n`);
    return error instanceof ConfigError ? EXIT.settings : EXIT.failed;
  }
}

process.exitCode = await becomeLauncher();
