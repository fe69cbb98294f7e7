import { spawn } from 'node:child_process';

/** Output that is looked at; a tool that says more is not understood anyway. */
const MAX_OUTPUT_BYTES = 256 * 1024;

/**
 * Runs a tool of the host and answers its standard output, or undefined when it is missing, fails, says too much or takes
 * too long. It is killed with everything that it started; one that hangs in the kernel cannot be, and is left behind.
 */
export function runTool(command: string, args: readonly string[], timeoutMs: number): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'ignore'], detached: true });
  const chunks: Buffer[] = [];
  let bytes = 0;
  const giveUp = (): void => {
    if (child.pid !== undefined) killGroup(child.pid);
    child.stdout.destroy();
    child.unref();
    resolve(undefined);
  };
  const timer = setTimeout(giveUp, timeoutMs);
  child.stdout.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > MAX_OUTPUT_BYTES) giveUp();
  });
  child.once('error', () => resolve(undefined));
  child.once('close', (code) => resolve(code === 0 ? Buffer.concat(chunks).toString('utf8') : undefined));
  return promise.finally(() => clearTimeout(timer));
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // It has just ended.
  }
}
