import { createRequire } from 'node:module';
import { ENVIRONMENT_BOUNDS, messageOf } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Environment_Venv as Venv } from '@harrier/shared/gen/module';
import { checkLength, checkTexts } from '../bounded-text.ts';
import { EnvironmentError } from '../environment.ts';
import { isRequirement, parsePin } from './requirement-syntax.ts';

// Loaded with the first pyproject.toml: 5 MiB that most agents never need.
const require = createRequire(import.meta.url);

/**
 * What is to be installed: the requirements and those of the `pyproject.toml`. In time that grows with the text and no faster:
 * it is read for every call.
 * @throws EnvironmentError for what does not come from the index, and a file that is none
 */
export function requirementsOf(venv: Venv): string[] {
  checkLength('the lock', venv.lock, ENVIRONMENT_BOUNDS.lockChars);
  const given = [...venv.requirements, ...dependenciesOf(venv.pyproject)];
  checkTexts('requirements', given);
  const requirements = given.map((one) => one.trim());
  for (const requirement of requirements) checkRequirement(requirement);
  return requirements;
}

/**
 * A lock as installers get it: one pin a line, and nothing that was not understood here. Comments and empty lines are left out.
 * @throws EnvironmentError for a line that does not pin a package of the index
 */
export function plainLock(text: string): string {
  checkLength('the lock', text, ENVIRONMENT_BOUNDS.lockChars);
  const pins: string[] = [];
  let joined: string[] = [];
  const end = () => {
    const line = joined.join(' ').trim();
    if (line !== '') pins.push(`${plainPin(line)}\n`);
    joined = [];
  };
  for (const line of text.split('\n')) {
    // A comment ends with its line, whatever stands at its end.
    if (joined.length === 0 && line.trimStart().startsWith('#')) continue;
    const plain = withoutComment(line.endsWith('\r') ? line.slice(0, -1) : line);
    if (plain.endsWith('\\')) {
      joined.push(plain.slice(0, -1));
      continue;
    }
    joined.push(plain);
    end();
  }
  end();
  return pins.join('');
}

/** A comment begins a line, or stands behind a blank. */
function withoutComment(line: string): string {
  if (line.startsWith('#')) return '';
  const start = line.search(/\s#/);
  return start < 0 ? line : line.slice(0, start);
}

function plainPin(line: string): string {
  const pin = parsePin(line);
  if (pin !== undefined) {
    const hashes = pin.hashes.map((hash) => ` --hash=${hash}`).join('');
    return `${pin.name}==${pin.version}${pin.marker}${hashes}`;
  }
  const options = line.search(/\s--hash[=\s]/);
  checkRequirement(options < 0 ? line : line.slice(0, options).trimEnd());
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
  if (isRequirement(requirement)) return;
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
  checkLength('pyproject.toml', pyproject, ENVIRONMENT_BOUNDS.pyprojectChars);
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
