import type { AgentConfig } from './config.ts';
import { buildBounds } from './environment/build-runs.ts';
import { resolvePython } from './launcher/python.ts';
import type { StartLauncherOptions } from './launcher/start-launcher.ts';

/**
 * What the launcher of an agent with these settings is started with, whoever starts it.
 * @throws HarrierError failed_precondition, when there is no Python for it
 */
export async function launcherOptionsOf(config: AgentConfig): Promise<StartLauncherOptions> {
  const python = await resolvePython(config.python ?? 'python3');
  return {
    python: python.path,
    jobPython: config.python === undefined ? undefined : python.path,
    dataDir: config.dataDir,
    socketPath: config.launcherSocketPath,
    allowUnsandboxed: config.allowUnsandboxed,
    spoolBytes: config.spoolBytes,
    zygoteMemoryBytes: buildBounds(config.maxMemoryBytes).memoryBytes,
  };
}
