import { createRequire } from 'node:module';
import { messageOf } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Environment_Venv as Venv } from '@harrier/shared/gen/module';
import { EnvironmentError } from '../environment.ts';

// Loaded with the first pyproject.toml: 5 MiB that most agents never need.
const require = createRequire(import.meta.url);

/** PEP 508 without URLs: name, extras, versions, marker. */
const NAME = String.raw`[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?(?:\s*\[[\w\s.,-]*\])?`;
const MARKER = String.raw`(?:\s*;(?!\s*-)(?:(?!\s-)[\w\s.'"<>=!~(),+*-])*)?`;
const REQUIREMENT = new RegExp(String.raw`^${NAME}\s*(?!-)\(?(?:(?!\s-)[\w\s.<>=!~,*+-])*\)?${MARKER}$`);
const PIN = new RegExp(
  String.raw`^(${NAME})\s*(==)\s*([\w.!+-]+)(${MARKER})((?:\s+--hash[=\s](?:sha256|sha384|sha512):[0-9a-fA-F]+)*)$`,
);
/** What a reader of lines could take for the end of one, or expand. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
const UNCLEAN = /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u2028\u2029$\\]/;

/**
 * What is to be installed: the requirements and those of the `pyproject.toml`.
 * @throws EnvironmentError for what does not come from the index, and a file that is none
 */
export function requirementsOf(venv: Venv): string[] {
  const requirements = [...venv.requirements, ...dependenciesOf(venv.pyproject)].map((one) => one.trim());
  for (const requirement of requirements) checkRequirement(requirement);
  return requirements;
}

/**
 * A lock as installers get it: one pin a line, and nothing that was not understood here. Comments and empty lines are left out.
 * @throws EnvironmentError for a line that does not pin a package of the index
 */
export function plainLock(text: string): string {
  const pins: string[] = [];
  let joined = '';
  for (const line of text.split(/\r?\n/)) {
    // A comment ends with its line, whatever stands at its end.
    if (joined === '' && line.trimStart().startsWith('#')) continue;
    joined += line.replace(/(^|\s)#.*$/, '');
    if (joined.endsWith('\\')) {
      joined = `${joined.slice(0, -1)} `;
      continue;
    }
    if (joined.trim() !== '') pins.push(plainPin(joined.trim()));
    joined = '';
  }
  if (joined.trim() !== '') pins.push(plainPin(joined.trim()));
  return pins.map((pin) => `${pin}\n`).join('');
}

function plainPin(line: string): string {
  const parts = UNCLEAN.test(line) ? null : PIN.exec(line);
  if (parts !== null) {
    const [, name, , version, marker = '', hashes = ''] = parts;
    return `${name?.replace(/\s+/g, '')}==${version}${marker.trimEnd()}${hashes.replace(/\s+--hash[=\s]/g, ' --hash=')}`;
  }
  checkRequirement(line.replace(/\s+--hash[=\s]\S+/g, ''));
  throw failed(
    `the lock must pin every package to one version (name==version), which "${line.slice(0, 200)}" does not`,
  );
}

/** The packages of a lock come with hashes; then each of them must. */
export function hasHashes(lock: string): boolean {
  return /(^|\s)--hash[=\s]/.test(lock);
}

/** @throws EnvironmentError POLICY_DENIED for an option of pip, and for what does not come from the index */
export function checkRequirement(requirement: string): void {
  if (!UNCLEAN.test(requirement) && REQUIREMENT.test(requirement)) return;
  const shown = JSON.stringify(requirement.slice(0, 200));
  const why = /[\r\n]/.test(requirement)
    ? 'is more than one requirement'
    : /^-|\s-/.test(requirement)
      ? 'has an option of pip; only packages can be required'
      : /[@/:]|\.(whl|zip|tar\.gz|tgz)$/i.test(requirement)
        ? 'does not come from the package index'
        : 'is not one requirement like "name>=1.2"';
  throw new EnvironmentError(Code.POLICY_DENIED, `${shown} ${why}`);
}

function dependenciesOf(pyproject: string): string[] {
  if (pyproject === '') return [];
  const { parse } = require('smol-toml') as typeof import('smol-toml');
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
