import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { HarrierError, messageOf } from '@harrier/shared';

const run = promisify(execFile);
/** A shim that looks for the right interpreter takes a tenth of a second; a broken one must not hold the agent. */
const TIMEOUT_MS = 10_000;
const OLDEST: readonly [number, number] = [3, 9];
const SCRIPT = 'import sys; print(sys.executable); print("%d.%d.%d" % sys.version_info[:3])';

export interface PythonInterpreter {
  path: string;
  version: string;
}

/**
 * Asks an interpreter where it really is: `python3` on PATH may be a shim that adds 80 ms to every start.
 * @throws HarrierError failed_precondition, when there is none or it is too old
 */
export async function resolvePython(command: string): Promise<PythonInterpreter> {
  const [path = '', version = ''] = await ask(command);
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (path === '' || major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1])) {
    throw new HarrierError(
      'failed_precondition',
      `Python ${OLDEST.join('.')} or newer is needed; "${command}" is ${version || 'of unknown version'} (HARRIER_AGENT_PYTHON)`,
    );
  }
  return { path, version };
}

async function ask(command: string): Promise<string[]> {
  try {
    const { stdout } = await run(command, ['-I', '-c', SCRIPT], { timeout: TIMEOUT_MS, killSignal: 'SIGKILL' });
    return stdout.split('\n').map((line) => line.trim());
  } catch (cause) {
    throw new HarrierError(
      'failed_precondition',
      `Python could not be started as "${command}" (HARRIER_AGENT_PYTHON): ${messageOf(cause).split('\n', 1)[0]}`,
      { cause },
    );
  }
}
