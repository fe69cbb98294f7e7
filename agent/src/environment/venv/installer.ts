import { join } from 'node:path';
import type { Bind } from '../../launcher/messages.ts';
import { ENVIRONMENT_PATH, MADE, TOOLS_PATH } from '../build-runner.ts';
import { type ChosenIndexes, hasCredentials } from '../index-policy.ts';

/** What a step of a build runs: a script of the shell with these variables, and a text for its standard input. */
export interface InstallerStep {
  script: string;
  variables: Record<string, string>;
}

/** Resolves and installs packages; its scripts run in the build's sandbox. */
export interface Installer {
  readonly name: string;
  readonly binds: readonly Bind[];
  /**
   * Standard input: the requirements. Standard output: the lock; a comment `# bytes: N` in it tells what there is to download,
   * if that is known. Versions that have wheels are taken where that is possible: then nobody's code runs.
   */
  resolve(python: string, indexes: ChosenIndexes): InstallerStep;
  /** Makes the environment. Standard input: the lock; empty: no packages. */
  install(python: string, indexes: ChosenIndexes, lock: { empty: boolean; hashes: boolean }): InstallerStep;
  /**
   * Both in one sandbox, from wheels alone: standard input and output as of `resolve`. No code of a package runs, so none can
   * change the lock. Where wheels do not do, it prints nothing and leaves no package in the environment.
   */
  resolveAndInstallWheels(python: string, indexes: ChosenIndexes): InstallerStep;
  /** Compiles what was installed, while it is in use. Absent where `install` has done so. */
  compile?(python: string): InstallerStep;
}

const PREPARE = 'set -e; mkdir -p "$HOME" "$TMPDIR"';

/** What uv is told by its variables. */
export function uvVariables(indexes: ChosenIndexes): Record<string, string> {
  const [index = '', ...extra] = indexes.urls;
  return {
    UV_DEFAULT_INDEX: index,
    UV_INDEX: extra.join(' '),
    UV_CACHE_DIR: '/cache/uv',
    UV_PYTHON_DOWNLOADS: 'never',
    UV_NO_CONFIG: '1',
    UV_NO_PROGRESS: '1',
    // A package in the cache must never be the same file as one in an environment.
    UV_LINK_MODE: 'copy',
    // `uv pip` has no variable for it.
    BUILD_FLAG: hasCredentials(indexes) ? NO_BUILD : '',
  };
}

/** Of `uv pip`: nobody's code runs. */
const NO_BUILD = '--no-build';
/** Shell: what installs and compiles with `uv pip` must be given. */
export const BUILD_FLAG = '$BUILD_FLAG';

/** Shell: a command of uv that takes wheels where that is possible, and else builds what it must to know what there is. */
export function uvWheelsFirst(command: string, output: string): string {
  return `${command} ${NO_BUILD} > ${output} 2>/dev/null || ${command} ${BUILD_FLAG} > ${output}`;
}

const REQUIREMENTS = '/tmp/requirements.txt';
const LOCK = '/tmp/lock.txt';
/** The lock as uv tells the files in it. */
const PYLOCK = '/tmp/pylock.toml';
const DOWNLOAD_SIZE = `${TOOLS_PATH}/download_size.py`;
/** Of what may fail. */
const LOG = '/tmp/install.log';
/** Packages as links into the cache. */
const DOWNLOADED = '/tmp/downloaded';
/** Of pip. */
const REPORT = '/tmp/report.json';
const RESOLVER = '/tmp/resolver';
/** Shell: `--require-hashes` when the lock has hashes; an index need not tell any. */
const FOUND_HASHES = `$(if grep -q -- --hash= ${LOCK}; then echo --require-hashes; fi)`;

/** uv: fast, and resolves for exactly this interpreter. */
export function uvInstaller(source: string): Installer {
  const common = (python: string, indexes: ChosenIndexes) => ({ PYTHON: python, ...uvVariables(indexes) });
  const lock = 'uv pip compile --python "$PYTHON" --generate-hashes --no-header --no-annotate --quiet';
  const venv = `uv venv --quiet --allow-existing --python "$PYTHON" ${ENVIRONMENT_PATH}; echo '${MADE}'`;
  const install = `uv pip install --python ${ENVIRONMENT_PATH}/bin/python --no-deps ${BUILD_FLAG}`;
  return {
    name: 'uv',
    binds: [
      { source, target: `${TOOLS_PATH}/uv`, writable: false },
      { source: join(import.meta.dirname, 'download_size.py'), target: DOWNLOAD_SIZE, writable: false },
    ],
    resolve: (python, indexes) => ({
      script: [
        PREPARE,
        `cat > ${REQUIREMENTS}`,
        uvWheelsFirst(`${lock} ${REQUIREMENTS}`, LOCK),
        `cat ${LOCK}`,
        // Not known where the index does not tell: no reason to have no lock.
        `uv pip compile --python "$PYTHON" --offline --no-deps --format pylock.toml --quiet ${LOCK} > ${PYLOCK} || exit 0`,
        `"$PYTHON" -I -S ${DOWNLOAD_SIZE} ${PYLOCK} || exit 0`,
      ].join('\n'),
      variables: common(python, indexes),
    }),
    install: (python, indexes, { empty, hashes }) => ({
      script: [PREPARE, venv, empty ? 'true' : `${install} ${hashes ? '--require-hashes ' : ''}-r /dev/stdin`].join(
        '; ',
      ),
      variables: common(python, indexes),
    }),
    // What is resolved and downloaded by one process needs half of the round trips of two. It goes to the cache only: the lock
    // is made of that, and what it names installed with its hashes. Where the cache does not do, the index is asked again.
    resolveAndInstallWheels: (python, indexes) => ({
      script: [
        PREPARE,
        `cat > ${REQUIREMENTS}`,
        `{ ${venv}; } & venv=$!`,
        `uv pip install --python "$PYTHON" --target ${DOWNLOADED} --link-mode symlink --quiet ${NO_BUILD} -r ${REQUIREMENTS} 2>/dev/null || { wait $venv; exit 0; }`,
        `${lock} ${NO_BUILD} --offline ${REQUIREMENTS} > ${LOCK} 2>/dev/null || ${lock} ${NO_BUILD} ${REQUIREMENTS} > ${LOCK}`,
        // What it says comes before the lock, not within it.
        'wait $venv',
        `cat ${LOCK}`,
        `hashes=${FOUND_HASHES}`,
        `if ${install} --offline $hashes -r ${LOCK} 2> ${LOG}; then cat ${LOG} >&2; else ${install} $hashes -r ${LOCK} >&2; fi`,
      ].join('\n'),
      variables: { ...common(python, indexes), BUILD_FLAG: NO_BUILD },
    }),
    // By the standard library, without anything of the environment.
    compile: (python) => ({
      script: `nice -n 19 "$PYTHON" -I -S -m compileall -q ${ENVIRONMENT_PATH}/lib || true`,
      variables: { PYTHON: python },
    }),
  };
}

/** pip, as every Python has it: where the host has no uv. */
export function pipInstaller(): Installer {
  const common = (python: string, indexes: ChosenIndexes) => {
    const [index = '', ...extra] = indexes.urls;
    return {
      PYTHON: python,
      PIP_INDEX_URL: index,
      ...(extra.length === 0 ? {} : { PIP_EXTRA_INDEX_URL: extra.join(' ') }),
      PIP_CACHE_DIR: '/cache/pip',
      PIP_CONFIG_FILE: '/dev/null',
      PIP_CERT: '/etc/ssl/certs/ca-certificates.crt',
      PIP_DISABLE_PIP_VERSION_CHECK: '1',
      PIP_NO_INPUT: '1',
      PIP_PROGRESS_BAR: 'off',
      ...(hasCredentials(indexes) ? { PIP_ONLY_BINARY: ':all:' } : {}),
    };
  };
  // The report of pip, as a requirements file with hashes.
  const toLock = [
    'import json, sys',
    'for item in json.load(open(sys.argv[1]))["install"]:',
    '    meta, hashes = item["metadata"], item["download_info"].get("archive_info", {}).get("hashes", {})',
    '    pins = "".join(f" --hash={name}:{value}" for name, value in sorted(hashes.items()))',
    "    print(f\"{meta['name']}=={meta['version']}{pins}\")",
  ].join('\n');
  const install = `${ENVIRONMENT_PATH}/bin/python -m pip install --no-deps`;
  const report = (venv: string) =>
    `${venv}/bin/python -m pip install --quiet --dry-run --ignore-installed --report ${REPORT} -r ${REQUIREMENTS} >/dev/null`;
  const toLockOf = (venv: string) => `${venv}/bin/python -c "$TO_LOCK" ${REPORT}`;
  return {
    name: 'pip',
    binds: [],
    resolve: (python, indexes) => ({
      script: [
        PREPARE,
        `cat > ${REQUIREMENTS}`,
        `"$PYTHON" -m venv ${RESOLVER}`,
        `PIP_ONLY_BINARY=:all: ${report(RESOLVER)} 2>/dev/null || ${report(RESOLVER)}`,
        toLockOf(RESOLVER),
      ].join('\n'),
      variables: { ...common(python, indexes), TO_LOCK: toLock },
    }),
    install: (python, indexes, { empty, hashes }) => ({
      script: [
        PREPARE,
        `"$PYTHON" -m venv ${ENVIRONMENT_PATH}`,
        empty ? 'true' : `${install} ${hashes ? '--require-hashes ' : ''}-r /dev/stdin >&2`,
      ].join('; '),
      variables: common(python, indexes),
    }),
    resolveAndInstallWheels: (python, indexes) => ({
      script: [
        PREPARE,
        `cat > ${REQUIREMENTS}`,
        `"$PYTHON" -m venv ${ENVIRONMENT_PATH}`,
        `${report(ENVIRONMENT_PATH)} 2>/dev/null || exit 0`,
        `${toLockOf(ENVIRONMENT_PATH)} > ${LOCK}`,
        `cat ${LOCK}`,
        `${install} ${FOUND_HASHES} -r ${LOCK} >&2`,
      ].join('\n'),
      variables: { ...common(python, indexes), TO_LOCK: toLock, PIP_ONLY_BINARY: ':all:' },
    }),
  };
}
