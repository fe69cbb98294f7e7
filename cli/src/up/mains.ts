import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

/** Programs of the processes. They are started, never imported: each has a process of its own. */
export const MAINS = {
  server: fileURLToPath(new URL('../../../control-plane/src/main.ts', import.meta.url)),
  agent: fileURLToPath(new URL('../../../agent/src/main.ts', import.meta.url)),
} as const;

/**
 * Replaces this process by one of the mains, so that signals and the exit code need nobody in between; where a process
 * cannot be replaced, it is run as a child. @returns its exit code
 */
export async function becomeMain(
  name: keyof typeof MAINS,
  flags: readonly string[],
  environment: Record<string, string>,
): Promise<number> {
  const argv = [process.execPath, MAINS[name], ...flags];
  if (process.platform !== 'win32' && process.execve !== undefined) process.execve(process.execPath, argv, environment);
  const child = spawn(process.execPath, argv.slice(1), { stdio: 'inherit', env: environment });
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  process.on('SIGINT', () => {});
  const [code] = (await once(child, 'exit')) as [number | null];
  return code ?? 1;
}
