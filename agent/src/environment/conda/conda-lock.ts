import { ENVIRONMENT_BOUNDS } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { checkLength } from '../bounded-text.ts';
import { EnvironmentError } from '../environment.ts';
import { plainUrl, shownUrl } from '../url-scope.ts';
import { SCHEMES } from './channel-policy.ts';

const PIP_MARK = '# pip:';
/** URL, and an MD5 or SHA-256 of the package. */
const PACKAGE = /^(\S+?)(?:#([0-9a-f]{32}|[0-9a-f]{64}))?$/i;

/** A package of a conda lock. */
export interface CondaPackage {
  /** Plain, see `plainUrl`. */
  url: string;
  /** MD5 or SHA-256 in hexadecimal; empty: none is known. */
  digest: string;
}

/**
 * The lock of a conda environment: an explicit list of package URLs as `conda list --explicit` writes it, and after a
 * comment, so that conda itself still takes it, what pip installs on top.
 */
export interface CondaLock {
  packages: CondaPackage[];
  /** A requirements file with every version pinned; empty: nothing. */
  pip: string;
}

export function formatLock({ packages, pip }: CondaLock): string {
  const lines = ['@EXPLICIT', ...packages.map(({ url, digest }) => (digest === '' ? url : `${url}#${digest}`))];
  const pins =
    pip.trim() === ''
      ? []
      : [
          PIP_MARK,
          ...pip
            .trimEnd()
            .split('\n')
            .map((line) => `# ${line}`),
        ];
  return `${[...lines, ...pins].join('\n')}\n`;
}

/**
 * Reads a lock; whoever installs it gets what is read here, and never the text.
 * @throws EnvironmentError for a line that is none of an explicit list, and when there is no package
 */
export function parseLock(text: string): CondaLock {
  checkLength('the lock', text, ENVIRONMENT_BOUNDS.lockChars);
  const [explicit = '', pip = ''] = text.split(`${PIP_MARK}\n`);
  const packages: CondaPackage[] = [];
  for (const line of explicit.split(/\r?\n/).map((one) => one.trim())) {
    if (line === '' || line === '@EXPLICIT' || line.startsWith('#')) continue;
    const [, given = '', digest = ''] = PACKAGE.exec(line) ?? [];
    const url = plainUrl(given, SCHEMES);
    if (url === undefined)
      throw failed(`the lock has the line "${shownUrl(line.slice(0, 200))}", which is no plain package URL`);
    packages.push({ url, digest: digest.toLowerCase() });
  }
  if (packages.length > 0) return { packages, pip: pip.replace(/^# ?/gm, '') };
  throw failed('the lock names no package; it must be an explicit list as "conda list --explicit --md5" writes it');
}

/** `3.12` of `…/linux-64/python-3.12.4-h1_0.conda`; undefined when there is no Python in it. */
export function pythonVersionOf(packages: readonly CondaPackage[]): string | undefined {
  for (const { url } of packages) {
    const found = /\/python-(\d+\.\d+)[^/]*$/.exec(url)?.[1];
    if (found !== undefined) return found;
  }
  return undefined;
}

function failed(message: string): EnvironmentError {
  return new EnvironmentError(Code.ENVIRONMENT_FAILED, message);
}
