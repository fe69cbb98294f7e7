import { messageOf } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Environment_Venv as Venv } from '@harrier/shared/gen/module';
import { parse } from 'smol-toml';
import { EnvironmentError } from '../environment.ts';

/** `name @ https://…`, a bare URL, or something on the disk: not from the index. */
const NOT_FROM_INDEX = /(^|\s|@\s*)(\w[\w+.-]*:\/\/|file:)|^[./~]|^[^\s[;=<>!~@]+\/|\.(whl|zip|tar\.gz|tgz)(\s|$|;)/i;

/**
 * What is to be installed: the requirements and those of the `pyproject.toml`.
 * @throws EnvironmentError for what does not come from the index, and a file that is none
 */
export function requirementsOf(venv: Venv): string[] {
  const requirements = [...venv.requirements, ...dependenciesOf(venv.pyproject)].map((one) => one.trim());
  for (const requirement of requirements) checkRequirement(requirement);
  return requirements;
}

/** @throws EnvironmentError for options and for packages that do not come from the index */
export function checkLock(lock: string): void {
  const lines = lock.replace(/\\\r?\n/g, ' ').split(/\r?\n/);
  for (const line of lines.map((one) => one.replace(/(^|\s)#.*$/, '').trim())) {
    if (line === '') continue;
    checkRequirement(line.replace(/\s--hash[=\s]\S+/g, ''));
    if (!/^[A-Za-z0-9][\w.-]*(\[[^\]]*\])?\s*==\s*[^\s*]+/.test(line)) {
      throw failed(
        `the lock must pin every package to one version (name==version), which "${line.slice(0, 200)}" does not`,
      );
    }
  }
}

/** The packages of a lock come with hashes; then each of them must. */
export function hasHashes(lock: string): boolean {
  return /(^|\s)--hash[=\s]/.test(lock);
}

/** @throws EnvironmentError POLICY_DENIED for an option of pip, and for what does not come from the index */
export function checkRequirement(requirement: string): void {
  // Each goes into a file that is read line by line.
  if (/[\r\n\0]/.test(requirement)) {
    throw new EnvironmentError(Code.POLICY_DENIED, `${JSON.stringify(requirement)} is more than one requirement`);
  }
  if (requirement.startsWith('-') || /\s--?[a-z]/.test(requirement)) {
    throw new EnvironmentError(
      Code.POLICY_DENIED,
      `"${requirement}" has an option of pip; only packages can be required`,
    );
  }
  // `name @ …` takes a path as well as a URL; what is behind the semicolon only says where it is needed.
  const [name = ''] = requirement.split(';', 1);
  if (name.includes('@') || NOT_FROM_INDEX.test(requirement)) {
    throw new EnvironmentError(Code.POLICY_DENIED, `"${requirement}" does not come from the package index`);
  }
}

function dependenciesOf(pyproject: string): string[] {
  if (pyproject === '') return [];
  let document: { project?: { dependencies?: unknown } };
  try {
    document = parse(pyproject);
  } catch (error) {
    throw failed(`pyproject.toml cannot be read: ${messageOf(error)}`);
  }
  const dependencies = document.project?.dependencies ?? [];
  if (Array.isArray(dependencies) && dependencies.every((one) => typeof one === 'string')) return dependencies;
  throw failed('pyproject.toml: project.dependencies must be a list of texts');
}

function failed(message: string): EnvironmentError {
  return new EnvironmentError(Code.ENVIRONMENT_FAILED, message);
}
