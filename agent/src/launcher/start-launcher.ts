import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { HarrierError } from '@harrier/shared';
import { launcherBuild } from './launcher-build.ts';

const RUNTIME = fileURLToPath(new URL('../../runtime/', import.meta.url));
const PROGRAM = join(RUNTIME, 'launcher.py');
/** It answers within a second; what takes this long hangs. */
const TIMEOUT_MS = 30_000;
const MAX_REASON_BYTES = 4096;

export interface StartLauncherOptions {
  /** Resolved interpreter of the launcher. */
  python: string;
  /** Interpreter of the code; undefined lets the launcher choose. */
  jobPython: string | undefined;
  dataDir: string;
  socketPath: string;
  allowUnsandboxed: boolean;
  /** Most bytes of the spool; undefined leaves the launcher's default. */
  spoolBytes: number | undefined;
  /** What packages may use before a call runs; absent: the launcher's default. */
  zygoteMemoryBytes?: number;
}

/** The build that `startLauncher` would start now. */
export function buildOf(options: StartLauncherOptions): string {
  return launcherBuild(RUNTIME, [options.python, ...launcherArguments(options)]);
}

/**
 * The command of a launcher that a service manager runs: in the foreground, with its log on standard error, and for as long as it is
 * not told to end.
 */
export function serviceCommand(options: StartLauncherOptions): { file: string; args: string[] } {
  const service = ['--build', buildOf(options), '--foreground', '--idle-exit-s', '0'];
  return { file: options.python, args: ['-I', '-S', PROGRAM, ...launcherArguments(options), ...service] };
}

/**
 * Starts a launcher, which detaches itself: it gets none of the terminal's signals and outlives the agent. Resolves when
 * its socket answers. Its log is `launcher.log` in the data directory.
 * @throws HarrierError failed_precondition with what the launcher says, when it cannot start
 */
export function startLauncher(options: StartLauncherOptions): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const log = join(options.dataDir, 'launcher.log');
  const flags = [...launcherArguments(options), '--log', log, '--build', buildOf(options)];
  const child = spawn(options.python, ['-I', '-S', PROGRAM, ...flags], {
    stdio: ['ignore', 'ignore', 'pipe'],
    timeout: TIMEOUT_MS,
    killSignal: 'SIGKILL',
  });
  let reason = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    reason = (reason + text).slice(0, MAX_REASON_BYTES);
  });
  child.once('error', (error) => reject(startError(error.message)));
  child.once('close', (code, signal) => {
    if (code === 0) resolve();
    else reject(startError(reason.trim() || `it ended with ${signal ?? `code ${code}`}`));
  });
  return promise;
}

function launcherArguments(options: StartLauncherOptions): string[] {
  const { dataDir, socketPath, allowUnsandboxed, spoolBytes, zygoteMemoryBytes, jobPython } = options;
  return [
    ...['--socket', socketPath, '--spool', join(dataDir, 'spool')],
    ...(allowUnsandboxed ? ['--allow-unsandboxed'] : []),
    ...(spoolBytes === undefined ? [] : ['--spool-bytes', String(spoolBytes)]),
    ...(zygoteMemoryBytes === undefined ? [] : ['--zygote-memory-bytes', String(zygoteMemoryBytes)]),
    ...(jobPython === undefined ? [] : ['--python', jobPython]),
  ];
}

function startError(reason: string): HarrierError {
  return new HarrierError('failed_precondition', `the launcher did not start: ${reason}`);
}
