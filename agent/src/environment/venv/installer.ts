import type { Bind } from '../../launcher/messages.ts';
import { ENVIRONMENT_PATH, TOOLS_PATH } from '../build-runner.ts';
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
  /** Standard input: the requirements. Standard output: the lock. */
  resolve(python: string, indexes: ChosenIndexes): InstallerStep;
  /** Makes the environment. Standard input: the lock; empty: no packages. */
  install(python: string, indexes: ChosenIndexes, lock: { empty: boolean; hashes: boolean }): InstallerStep;
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
    ...(hasCredentials(indexes) ? { UV_NO_BUILD: '1' } : {}),
  };
}

/** uv: fast, and resolves for exactly this interpreter. */
export function uvInstaller(source: string): Installer {
  const common = (python: string, indexes: ChosenIndexes) => ({ PYTHON: python, ...uvVariables(indexes) });
  return {
    name: 'uv',
    binds: [{ source, target: `${TOOLS_PATH}/uv`, writable: false }],
    resolve: (python, indexes) => ({
      script: `${PREPARE}; exec uv pip compile --python "$PYTHON" --generate-hashes --no-header --no-annotate --quiet -`,
      variables: common(python, indexes),
    }),
    install: (python, indexes, { empty, hashes }) => ({
      script: [
        PREPARE,
        `uv venv --quiet --allow-existing --python "$PYTHON" ${ENVIRONMENT_PATH}`,
        empty
          ? 'true'
          : `uv pip install --python ${ENVIRONMENT_PATH}/bin/python --no-deps --compile-bytecode ${hashes ? '--require-hashes ' : ''}-r /dev/stdin`,
      ].join('; '),
      variables: common(python, indexes),
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
  return {
    name: 'pip',
    binds: [],
    resolve: (python, indexes) => ({
      script: [
        PREPARE,
        '"$PYTHON" -m venv /tmp/resolver',
        '/tmp/resolver/bin/python -m pip install --quiet --dry-run --ignore-installed --report /tmp/report.json -r /dev/stdin >&2',
        '/tmp/resolver/bin/python -c "$TO_LOCK" /tmp/report.json',
      ].join('; '),
      variables: { ...common(python, indexes), TO_LOCK: toLock },
    }),
    install: (python, indexes, { empty, hashes }) => ({
      script: [
        PREPARE,
        `"$PYTHON" -m venv ${ENVIRONMENT_PATH}`,
        empty
          ? 'true'
          : `${ENVIRONMENT_PATH}/bin/python -m pip install --no-deps ${hashes ? '--require-hashes ' : ''}-r /dev/stdin >&2`,
      ].join('; '),
      variables: common(python, indexes),
    }),
  };
}
