import { clone } from '@bufbuild/protobuf';
import { ENVIRONMENT_BOUNDS, HarrierError } from '@harrier/shared';
import {
  type Environment,
  EnvironmentSchema,
  type Limits,
  Limits_Network as Network,
  Environment_Docker_Pull as Pull,
} from '@harrier/shared/gen/module';
import { refuseNul } from './storable.ts';

/** What is to run in an environment, as far as the two must fit. */
export interface EnvironmentUse {
  /** `python`, `nodejs`, `go`; empty: Python, or not known (a command). */
  language: string;
  preload: readonly string[];
}

/** Languages that run in an environment besides Python; `docker` runs what its image holds. */
const LANGUAGES: Readonly<Record<string, readonly string[]>> = { inline: ['nodejs'], docker: ['nodejs', 'go'] };

/**
 * Refuses what no agent could prepare, before anything is stored.
 * @param field path of the environment in the request, for example `module.environment`
 * @throws HarrierError invalid_argument
 */
export function checkEnvironment(environment: Environment | undefined, use: EnvironmentUse, field: string): void {
  const kind = environment?.kind.case ?? 'inline';
  const owner = field.replace(/\.?environment$/, '');
  const beside = (name: string) => (owner === '' ? name : `${owner}.${name}`);
  const language = use.language || 'python';
  if (language !== 'python' && !(LANGUAGES[kind] ?? []).includes(language)) {
    throw invalid(beside('language'), `${kind} does not run "${language}"; docker does`);
  }
  if (use.preload.length > 0 && (kind === 'inline' || language !== 'python')) {
    throw invalid(beside('preload'), 'is for Python in venv, conda and docker');
  }
  switch (environment?.kind.case) {
    case 'venv':
      checkVenv(environment.kind.value, `${field}.venv`);
      break;
    case 'conda':
      checkConda(environment.kind.value, `${field}.conda`);
      break;
    case 'docker':
      checkImage(environment.kind.value.image, `${field}.docker.image`);
      break;
    default:
  }
}

/** @throws HarrierError invalid_argument */
export function checkImage(image: string, field: string): void {
  // The engine has the last word; what could be taken for something else is refused here.
  if (/[\s\p{Cc}]/u.test(image) || image.startsWith('-')) {
    throw invalid(field, `"${image}" is not a reference like name:tag or name@sha256:…`);
  }
}

/** @throws HarrierError invalid_argument */
export function checkNetwork(limits: Limits | undefined, field: string): void {
  if (limits === undefined || limits.egressHosts.length === 0) return;
  if (limits.network !== Network.EGRESS) throw invalid(`${field}.egress_hosts`, 'goes with network EGRESS');
  for (const [i, host] of limits.egressHosts.entries()) {
    const name = host.replace(/^\*\./, '').replace(/:\d+$/, '');
    // A name whose last part is a number is an IPv4 address, or nothing (WHATWG URL, "ends in a number").
    if (!URL.canParse(`http://${name}`)) {
      throw invalid(`${field}.egress_hosts[${i}]`, `"${host}" is neither a name nor an address`);
    }
  }
}

/**
 * Whether a lock that an agent has found holds for all agents. An image that was never in a registry has no digest that
 * another agent could fetch, and `ALWAYS` asks for whatever the tag names by then.
 */
export function isLockShared(environment: Environment | undefined, lock: string): boolean {
  if (environment?.kind.case !== 'docker') return lock !== '';
  return environment.kind.value.pull !== Pull.ALWAYS && lock.includes('@sha256:');
}

/** The environment with the lock that was decided; one that has a lock already stays as it is. */
export function lockedEnvironment(environment: Environment, lock: string): Environment {
  const locked = clone(EnvironmentSchema, environment);
  const { kind } = locked;
  if (kind.case === 'venv' || kind.case === 'conda') kind.value.lock ||= lock;
  if (kind.case === 'docker') kind.value.image = lock;
  return locked;
}

function checkVenv(venv: Extract<Environment['kind'], { case: 'venv' }>['value'], field: string): void {
  checkTexts(`${field}.requirements`, venv.requirements);
  checkTexts(`${field}.extra_index_urls`, venv.extraIndexUrls);
  checkLength(`${field}.index_url`, venv.indexUrl, ENVIRONMENT_BOUNDS.urlChars);
  checkLength(`${field}.lock`, venv.lock, ENVIRONMENT_BOUNDS.lockChars);
  checkLength(`${field}.pyproject`, venv.pyproject, ENVIRONMENT_BOUNDS.pyprojectChars);
  checkLength(`${field}.python`, venv.python, ENVIRONMENT_BOUNDS.pythonChars);
  for (const [i, requirement] of venv.requirements.entries()) {
    const text = requirement.trim();
    if (/[\r\n\0]/.test(requirement)) throw invalid(`${field}.requirements[${i}]`, 'must be one line');
    if (text.startsWith('-')) {
      throw invalid(`${field}.requirements[${i}]`, `"${text}" is an option of pip, not a requirement`);
    }
  }
  for (const [name, url] of [
    ['index_url', venv.indexUrl],
    ...venv.extraIndexUrls.map((extra, i) => [`extra_index_urls[${i}]`, extra]),
  ] as [string, string][]) {
    if (url !== '' && !/^https?:$/.test(URL.canParse(url) ? new URL(url).protocol : '')) {
      throw invalid(`${field}.${name}`, `"${url}" is not an http(s) URL`);
    }
  }
  refuseNul(`${field}.lock`, venv.lock);
  refuseNul(`${field}.python`, venv.python);
  refuseNul(`${field}.pyproject`, venv.pyproject);
}

function checkConda(conda: Extract<Environment['kind'], { case: 'conda' }>['value'], field: string): void {
  const listed = conda.dependencies.length > 0 || conda.channels.length > 0;
  if (conda.file !== '' && listed) throw invalid(`${field}.file`, 'stands instead of dependencies and channels');
  if (conda.file === '' && conda.lock === '' && conda.dependencies.length === 0) {
    throw invalid(`${field}.dependencies`, 'one of file, dependencies and lock says what to install');
  }
  checkLength(`${field}.file`, conda.file, ENVIRONMENT_BOUNDS.condaFileChars);
  checkLength(`${field}.lock`, conda.lock, ENVIRONMENT_BOUNDS.lockChars);
  checkTexts(`${field}.dependencies`, conda.dependencies);
  checkTexts(`${field}.channels`, conda.channels);
  refuseNul(`${field}.file`, conda.file);
  refuseNul(`${field}.lock`, conda.lock);
  for (const name of ['dependencies', 'channels'] as const) {
    for (const [i, text] of conda[name].entries()) {
      if (/[\r\n\0]/.test(text)) throw invalid(`${field}.${name}[${i}]`, 'must be one line');
    }
  }
}

/** Agents read these texts for each call. */
function checkLength(field: string, text: string, maxChars: number): void {
  if (text.length > maxChars) throw invalid(field, `${text.length} characters; at most ${maxChars} are taken`);
}

function checkTexts(field: string, texts: readonly string[]): void {
  const { requirementChars, requirementsChars } = ENVIRONMENT_BOUNDS;
  for (const [i, text] of texts.entries()) checkLength(`${field}[${i}]`, text, requirementChars);
  const chars = texts.reduce((sum, text) => sum + text.length + 1, 0);
  if (chars > requirementsChars) {
    throw invalid(field, `${chars} characters together; at most ${requirementsChars} are taken`);
  }
}

function invalid(field: string, message: string): HarrierError {
  return new HarrierError('invalid_argument', `${field}: ${message}`, { field });
}
