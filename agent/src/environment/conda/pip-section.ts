import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Bind } from '../../launcher/messages.ts';
import { ENVIRONMENT_PATH, runBuild, TOOLS_PATH } from '../build-runner.ts';
import type { BuildRuns } from '../build-runs.ts';
import { EnvironmentError } from '../environment.ts';
import { chooseIndexes, type IndexPolicy } from '../index-policy.ts';
import type { BuildStep } from '../package-provider.ts';
import { BUILD_FLAG, uvVariables, uvWheelsFirst } from '../venv/installer.ts';
import { type CondaPackage, pythonVersionOf } from './conda-lock.ts';

const REQUIREMENTS = '/tmp/requirements.txt';
const LOCK = '/tmp/lock.txt';
const CHECK =
  '/environment/bin/python -I -S -c "import sys; sys.exit(sys.version_info < (3, 9))" || { echo "the environment has no Python 3.9 or newer: add python to its dependencies" >&2; exit 1; }';

/** What pip installs on top of conda's packages, by uv. */
export class PipSection {
  readonly #runs: BuildRuns;
  readonly #indexes: IndexPolicy;
  readonly #uv: string | undefined;

  /** @param uv absent: pip sections are refused */
  constructor(runs: BuildRuns, indexes: IndexPolicy, uv: string | undefined) {
    this.#runs = runs;
    this.#indexes = indexes;
    this.#uv = uv;
  }

  /** The pins that the requirements come to for the Python among the packages; empty for none. @throws EnvironmentError */
  async resolve(
    requirements: readonly string[],
    packages: readonly CondaPackage[],
    { events, signal, ...where }: BuildStep,
  ): Promise<string> {
    if (requirements.length === 0) return '';
    if (this.#uv === undefined) throw failed('the pip section of environment.yml needs uv on the host of the agent');
    const version = pythonVersionOf(packages);
    if (version === undefined) throw failed('the pip section of environment.yml needs python among the dependencies');
    const indexes = chooseIndexes(this.#indexes, '', []);
    const compile = `uv pip compile --python-version ${version} --generate-hashes --no-header --no-annotate --quiet ${REQUIREMENTS}`;
    const script = [
      `set -e; mkdir -p "$HOME" "$TMPDIR"; cat > ${REQUIREMENTS}`,
      uvWheelsFirst(compile, LOCK),
      `cat ${LOCK}`,
    ].join('\n');
    const command = {
      ...{ ...where, hosts: indexes.hosts, argv: ['sh', '-c', script], input: `${requirements.join('\n')}\n` },
      ...{ binds: this.#binds(), variables: uvVariables(indexes) },
    };
    return await runBuild(this.#runs, command, events, signal);
  }

  /** Looks whether the environment has a Python that calls can run in, and installs the pins. @throws EnvironmentError */
  async install(pins: string, binds: readonly Bind[], { events, signal, ...where }: BuildStep): Promise<void> {
    const pip = `uv pip install --python ${ENVIRONMENT_PATH}/bin/python --break-system-packages --no-deps --require-hashes --compile-bytecode ${BUILD_FLAG} -r /dev/stdin`;
    const indexes = chooseIndexes(this.#indexes, '', []);
    const command = {
      ...{ ...where, input: pins, variables: uvVariables(indexes) },
      argv: ['sh', '-c', pins === '' ? CHECK : `${CHECK}; exec ${pip}`],
      ...{ binds: [...this.#binds(), ...binds], hosts: pins === '' ? [] : indexes.hosts },
    };
    await runBuild(this.#runs, command, events, signal);
  }

  #binds(): Bind[] {
    return this.#uv === undefined ? [] : [{ source: this.#uv, target: `${TOOLS_PATH}/uv`, writable: false }];
  }
}

function failed(message: string): EnvironmentError {
  return new EnvironmentError(Code.ENVIRONMENT_FAILED, message);
}
