import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Bind } from '../../launcher/messages.ts';
import { ENVIRONMENT_PATH, runBuild, TOOLS_PATH } from '../build-runner.ts';
import type { BuildRuns } from '../build-runs.ts';
import { EnvironmentError } from '../environment.ts';
import { chooseIndexes, hasCredentials, type IndexPolicy } from '../index-policy.ts';
import type { BuildStep } from '../package-provider.ts';
import { BUILD_FLAG, uvVariables, uvWheelsFirst } from '../venv/installer.ts';
import { type CondaPackage, pythonVersionOf } from './conda-lock.ts';

const REQUIREMENTS = '/tmp/requirements.txt';
const LOCK = '/tmp/lock.txt';
const CHECK =
  '/environment/bin/python -I -S -c "import sys; sys.exit(sys.version_info < (3, 9))" || { echo "the environment has no Python 3.9 or newer: add python to its dependencies" >&2; exit 1; }';
const INSTALL = `mkdir -p "$HOME" "$TMPDIR"; exec uv pip install --python ${ENVIRONMENT_PATH}/bin/python --break-system-packages --no-deps --require-hashes ${BUILD_FLAG} -r /dev/stdin`;
/** Not by uv: that starts the Python with all its variables, and it then runs `.pth` files of what was installed. */
const COMPILE = `${ENVIRONMENT_PATH}/bin/python -I -S -c "import compileall, sysconfig
for path in {sysconfig.get_path('purelib'), sysconfig.get_path('platlib')}:
    compileall.compile_dir(path, quiet=2, workers=0)" || true`;

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

  /** Where packages come from. */
  get indexUrls(): readonly string[] {
    return chooseIndexes(this.#indexes, '', []).urls;
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
      ...{ binds: this.#binds(), variables: uvVariables(indexes), closed: hasCredentials(indexes) },
    };
    return await runBuild(this.#runs, command, events, signal);
  }

  /** Whether installing the pins takes a password: then uv is given it, and starts the environment's own Python to look at it. */
  hasSecrets(pins: string): boolean {
    return pins !== '' && hasCredentials(chooseIndexes(this.#indexes, '', []));
  }

  /** Looks whether the environment has a Python that calls can run in, and installs the pins. @throws EnvironmentError */
  async install(pins: string, binds: readonly Bind[], { events, signal, ...where }: BuildStep): Promise<void> {
    const plain = { ...where, input: '', binds, hosts: [] };
    await runBuild(this.#runs, { ...plain, argv: ['sh', '-c', CHECK] }, events, signal);
    if (pins === '') return;
    const indexes = chooseIndexes(this.#indexes, '', []);
    const command = {
      ...{ ...where, hosts: indexes.hosts, argv: ['sh', '-c', INSTALL], input: pins },
      ...{ binds: [...this.#binds(), ...binds], variables: uvVariables(indexes), closed: this.hasSecrets(pins) },
    };
    await runBuild(this.#runs, command, events, signal);
    await runBuild(this.#runs, { ...plain, argv: ['sh', '-c', COMPILE] }, events, signal);
  }

  #binds(): Bind[] {
    return this.#uv === undefined ? [] : [{ source: this.#uv, target: `${TOOLS_PATH}/uv`, writable: false }];
  }
}

function failed(message: string): EnvironmentError {
  return new EnvironmentError(Code.ENVIRONMENT_FAILED, message);
}
