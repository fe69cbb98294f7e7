import { spawn } from 'node:child_process';
import { findExecutable } from '../hardware/find-executable.ts';

/** What a command of Slurm has said. `unanswered`: it did not come to an end by itself, so that nobody knows what it has done. */
export type ToolAnswer =
  | { kind: 'done'; stdout: string }
  | { kind: 'failed'; message: string }
  | { kind: 'unanswered'; message: string };

export type SlurmTool = 'sbatch' | 'squeue' | 'sacct' | 'scancel';

/** Runs a command of Slurm to its end. Never rejects. */
export type RunSlurmTool = (tool: SlurmTool, args: readonly string[], stdin?: string) => Promise<ToolAnswer>;

/** The commands wait up to MessageTimeout (10 s) for the controller, and try its backups after that. */
const TIMEOUT_MS = 60_000;
/** 1,000 jobs take 300 KiB. */
const MAX_STDOUT_BYTES = 16 * 1024 * 1024;
const MAX_STDERR_CHARS = 4096;

export interface SlurmToolsOptions {
  /** As in PATH. */
  searchPath: string;
  /** SLURM_CONF, where it is not in its usual place. */
  configuration: string | undefined;
  timeoutMs?: number;
}

/**
 * The commands of Slurm, each with a clean environment: variables such as SBATCH_PARTITION would be options that nobody has
 * looked at.
 */
export function slurmTools({ searchPath, configuration, timeoutMs = TIMEOUT_MS }: SlurmToolsOptions): RunSlurmTool {
  const env = {
    PATH: searchPath,
    LC_ALL: 'C',
    ...(configuration === undefined ? {} : { SLURM_CONF: configuration }),
  };
  return async (tool, args, stdin = '') => {
    const path = await findExecutable(tool, searchPath);
    if (path === undefined) return { kind: 'failed', message: `there is no command "${tool}" on the agent's PATH` };
    return await run(path, args, stdin, env, timeoutMs);
  };
}

function run(
  path: string,
  args: readonly string[],
  stdin: string,
  env: Record<string, string>,
  timeoutMs: number,
): Promise<ToolAnswer> {
  const { promise, resolve } = Promise.withResolvers<ToolAnswer>();
  const child = spawn(path, args, { env, cwd: '/', stdio: 'pipe', timeout: timeoutMs, killSignal: 'SIGKILL' });
  const stdout: Buffer[] = [];
  let stdoutBytes = 0;
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => {
    stdoutBytes += chunk.length;
    if (stdoutBytes <= MAX_STDOUT_BYTES) stdout.push(chunk);
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(0, MAX_STDERR_CHARS);
  });
  // It may have ended before it has read all.
  child.stdin.on('error', () => {}).end(stdin);
  child.once('error', (error) => resolve({ kind: 'failed', message: `${path}: ${error.message}` }));
  child.once('close', (code, signal) => {
    const said = stderr.trim().replaceAll(/\s*\n\s*/g, '; ');
    if (signal !== null) {
      const why = signal === 'SIGKILL' ? `no answer within ${timeoutMs / 1000} s` : `it was ended by ${signal}`;
      resolve({ kind: 'unanswered', message: `${path}: ${why}${said === '' ? '' : `: ${said}`}` });
    } else if (code !== 0) {
      resolve({ kind: 'failed', message: said || `${path} ended with exit code ${code}` });
    } else if (stdoutBytes > MAX_STDOUT_BYTES) {
      resolve({ kind: 'failed', message: `${path} has printed more than ${MAX_STDOUT_BYTES} bytes` });
    } else {
      resolve({ kind: 'done', stdout: Buffer.concat(stdout).toString('utf8') });
    }
  });
  return promise;
}
