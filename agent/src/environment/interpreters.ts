import { execFile } from 'node:child_process';
import { realpathSync } from 'node:fs';
import { readdir, realpath } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Bind } from '../launcher/messages.ts';
import { EnvironmentError } from './environment.ts';
import { isOpenToAll } from './tools.ts';

const run = promisify(execFile);
const NAMES = /^python3(\.\d+)?$/;
const OLDEST = [3, 9] as const;
const ASK_TIMEOUT_MS = 10_000;
/** What is missing may have been installed meanwhile; looking starts every interpreter once. */
const LOOK_AGAIN_MS = 60_000;
const QUESTION = `import json, sys, sysconfig
print(json.dumps([list(sys.version_info[:3]), sys.executable, sys.base_prefix, sys.base_exec_prefix,
    sysconfig.get_config_var("SOABI") or "", sys.implementation.cache_tag]))`;

/** An interpreter of the host that code in a sandbox can run. */
export interface Interpreter {
  /** As it is in the sandbox too. */
  path: string;
  version: readonly [number, number, number];
  /** What makes two builds of the same version differ. */
  build: string;
  /** What its binary packages are made for: `cpython-312-x86_64-linux-gnu`. */
  abi: string;
  /** Directories that the sandbox does not have by itself. */
  binds: Bind[];
}

/**
 * The Python interpreters of the host that the sandbox's user can reach, best first: that of `inline`, then newer ones.
 * They are found by the operator's PATH and never by what a caller names, since they are started to be asked.
 */
export class Interpreters {
  readonly #searchPath: string;
  readonly #preferred: () => string | undefined;
  readonly #mustBeOpen: boolean;
  #found: Promise<Interpreter[]> | undefined;
  #lookedMs = 0;
  /** What was found, once it was. */
  #known: readonly Interpreter[] = [];

  /**
   * @param preferred the interpreter of `inline`
   * @param mustBeOpen the sandbox has another user than this process: directories on the way must be open to everybody
   */
  constructor(searchPath: string, preferred: () => string | undefined, mustBeOpen: boolean) {
    this.#searchPath = searchPath;
    this.#preferred = preferred;
    this.#mustBeOpen = mustBeOpen;
  }

  /**
   * @param wanted `3.12`, `>=3.10, <3.13`, the path of an interpreter, or empty for that of `inline`
   * @throws EnvironmentError that lists what there is
   */
  async find(wanted: string): Promise<Interpreter> {
    this.#found ??= this.#look();
    this.#known = await this.#found;
    let found = this.findKnown(wanted);
    if (found === undefined && performance.now() - this.#lookedMs > LOOK_AGAIN_MS) {
      this.#found = this.#look();
      this.#known = await this.#found;
      found = this.findKnown(wanted);
    }
    if (found !== undefined) return found;
    const list = this.#known.map(({ version, path }) => `${version.join('.')} (${path})`).join(', ') || 'none';
    throw new EnvironmentError(
      Code.ENVIRONMENT_FAILED,
      `this agent has no Python "${wanted}" that a sandbox can run; it has ${list}`,
    );
  }

  /** As `find`, without asking anybody; undefined also as long as nobody has looked. */
  findKnown(wanted: string): Interpreter | undefined {
    const text = wanted.trim();
    const real = text.startsWith('/') ? realPathOf(text) : undefined;
    return this.#known.find((one) => (real === undefined ? matchesVersion(text, one.version) : one.path === real));
  }

  async #look(): Promise<Interpreter[]> {
    this.#lookedMs = performance.now();
    const preferred = this.#preferred();
    const candidates = new Set<string>(
      preferred === undefined ? [] : [await realpath(preferred).catch(() => preferred)],
    );
    for (const directory of [...this.#searchPath.split(':'), '/usr/bin', '/usr/local/bin']) {
      const names = await readdir(directory || '.').catch(() => []);
      for (const name of names.filter((one) => NAMES.test(one)).toSorted()) {
        const path = await realpath(join(directory, name)).catch(() => undefined);
        if (path !== undefined) candidates.add(path);
      }
    }
    const asked = await Promise.all([...candidates].map((path) => this.#ask(path)));
    const [first, ...rest] = asked.filter((one) => one !== undefined);
    return first === undefined ? [] : [first, ...rest.toSorted((a, b) => compareVersions(b.version, a.version))];
  }

  /** Undefined for what is no interpreter, too old, or out of the sandbox's reach. */
  async #ask(path: string): Promise<Interpreter | undefined> {
    try {
      const { stdout } = await run(path, ['-I', '-S', '-c', QUESTION], { timeout: ASK_TIMEOUT_MS, env: {} });
      const [version, executable, prefix, execPrefix, ...build] = JSON.parse(stdout);
      // A shim answers with another path than its own: what it starts is the interpreter.
      const own = await realpath(executable);
      const directories = new Set([prefix, execPrefix, dirname(own)].filter((one) => !isBelow(one, '/usr')));
      if (compareVersions(version, [...OLDEST, 0]) < 0) return undefined;
      if (this.#mustBeOpen) {
        for (const one of [own, ...directories]) if (!(await isOpenToAll(one))) return undefined;
      }
      const binds = [...directories]
        .filter((one, _, all) => !all.some((other) => other !== one && isBelow(one, other)))
        .map((source) => ({ source, target: source, writable: false }));
      const [soAbi, cacheTag] = build as string[];
      const abi = soAbi || `${cacheTag}-${process.arch}`;
      return { path: own, version, build: JSON.stringify([version, own, ...build]), abi, binds };
    } catch {
      return undefined;
    }
  }
}

/** `3.12`, `3.12.1`, or comparisons like `>=3.10, <3.13`; empty matches everything. */
export function matchesVersion(wanted: string, version: readonly number[]): boolean {
  return wanted
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .every((part) => {
      const [, operator = '', digits = ''] =
        /^(>=|<=|==|!=|~=|>|<|=)?\s*(\d+(?:\.\d+){0,2})(?:\.\*)?$/.exec(part) ?? [];
      if (digits === '') return false;
      const parts = digits.split('.').map(Number);
      const order = compareVersions(version.slice(0, parts.length), parts);
      switch (operator) {
        case '>=':
          return order >= 0;
        case '<=':
          return order <= 0;
        case '>':
          return order > 0;
        case '<':
          return order < 0;
        case '!=':
          return order !== 0;
        case '~=':
          return order >= 0 && compareVersions(version.slice(0, parts.length - 1), parts.slice(0, -1)) === 0;
        default:
          return order === 0;
      }
    });
}

function compareVersions(a: readonly number[], b: readonly number[]): number {
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const order = (a[i] ?? 0) - (b[i] ?? 0);
    if (order !== 0) return order;
  }
  return 0;
}

function realPathOf(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

function isBelow(path: string, directory: string): boolean {
  return path === directory || path.startsWith(`${directory}/`);
}
