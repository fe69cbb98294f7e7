import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { EnvironmentError } from '../environment.ts';

const PIP_MARK = '# pip:';

/**
 * The lock of a conda environment: an explicit list of package URLs as `conda list --explicit` writes it, and after a
 * comment, so that conda itself still takes it, what pip installs on top.
 */
export interface CondaLock {
  explicit: string;
  /** A requirements file with every version pinned; empty: nothing. */
  pip: string;
}

export function formatLock({ explicit, pip }: CondaLock): string {
  if (pip.trim() === '') return explicit;
  const lines = pip
    .trimEnd()
    .split('\n')
    .map((line) => `# ${line}`);
  return `${explicit.trimEnd()}\n${PIP_MARK}\n${lines.join('\n')}\n`;
}

/** @throws EnvironmentError when there is no package in it */
export function parseLock(text: string): CondaLock {
  const [explicit = '', pip = ''] = text.split(`${PIP_MARK}\n`);
  if (!explicit.split('\n').some((line) => /^\s*[a-z]+:\/\//.test(line))) {
    throw new EnvironmentError(
      Code.ENVIRONMENT_FAILED,
      'the lock names no package; it must be an explicit list as "conda list --explicit --md5" writes it',
    );
  }
  return { explicit, pip: pip.replace(/^# ?/gm, '') };
}

/** URLs of the packages. */
export function urlsOf({ explicit }: CondaLock): string[] {
  return explicit
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => /^[a-z]+:\/\//.test(line))
    .map((line) => line.replace(/#.*$/, ''));
}

/** `3.12` of `…/linux-64/python-3.12.4-h1_0.conda`; undefined when there is no Python in it. */
export function pythonVersionOf(lock: CondaLock): string | undefined {
  for (const url of urlsOf(lock)) {
    const found = /\/python-(\d+\.\d+)[^/]*$/.exec(url)?.[1];
    if (found !== undefined) return found;
  }
  return undefined;
}
