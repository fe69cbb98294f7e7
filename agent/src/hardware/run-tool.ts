import { spawn } from 'node:child_process';

/** Output that is looked at; a tool that says more is not understood anyway. */
const MAX_OUTPUT_BYTES = 256 * 1024;
const MAX_ERROR_CHARS = 2_000;

/** How a tool has answered. */
export type ToolAnswer =
  /** `code`: undefined when a signal ended it. */
  | { kind: 'ended'; code: number | undefined; output: string; errors: string }
  /** It could not be started. */
  | { kind: 'missing' }
  | { kind: 'too-much' }
  /** It did not end in time. `gone` resolves when it has, after it was killed: one that hangs in the kernel may never. */
  | { kind: 'hangs'; gone: Promise<void> };

/**
 * Runs a tool of the host and tells how it answers. It is killed with everything that it started when it says too much or
 * takes too long; one that hangs in the kernel cannot be, and is left behind.
 */
export function askTool(
  command: string,
  args: readonly string[],
  timeoutMs: number,
  maxOutputBytes = MAX_OUTPUT_BYTES,
): Promise<ToolAnswer> {
  const { promise, resolve } = Promise.withResolvers<ToolAnswer>();
  const gone = Promise.withResolvers<void>();
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  const chunks: Buffer[] = [];
  let bytes = 0;
  let errors = '';
  const giveUp = (answer: ToolAnswer): void => {
    if (child.pid !== undefined) killGroup(child.pid);
    child.stdout.destroy();
    child.stderr.destroy();
    child.unref();
    resolve(answer);
  };
  const timer = setTimeout(() => giveUp({ kind: 'hangs', gone: gone.promise }), timeoutMs);
  child.stdout.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > maxOutputBytes) giveUp({ kind: 'too-much' });
  });
  child.stderr.on('data', (chunk: Buffer) => {
    errors = (errors + chunk.toString('utf8')).slice(0, MAX_ERROR_CHARS);
  });
  child.once('error', () => resolve({ kind: 'missing' }));
  child.once('exit', () => gone.resolve());
  child.once('close', (code) => {
    resolve({ kind: 'ended', code: code ?? undefined, output: Buffer.concat(chunks).toString('utf8'), errors });
  });
  return promise.finally(() => clearTimeout(timer));
}

/** The standard output of a tool of the host, or undefined when it is missing, fails, says too much or takes too long. */
export async function runTool(
  command: string,
  args: readonly string[],
  timeoutMs: number,
): Promise<string | undefined> {
  const answer = await askTool(command, args, timeoutMs);
  return answer.kind === 'ended' && answer.code === 0 ? answer.output : undefined;
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // It has just ended.
  }
}
