import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Environment, Environment_Venv as Venv } from '@harrier/shared/gen/module';
import type { Bind, StartEnvironment } from '../../launcher/messages.ts';
import { runBuild, startBuildAhead } from '../build-runner.ts';
import type { BuildRuns } from '../build-runs.ts';
import { EnvironmentError } from '../environment.ts';
import { type EnvironmentPlace, EnvironmentStore } from '../environment-store.ts';
import { type ChosenIndexes, chooseIndexes, hasCredentials, type IndexPolicy } from '../index-policy.ts';
import type { Interpreter, Interpreters } from '../interpreters.ts';
import { type BuildStep, type PackageKind, PackageProvider, type Resolution, type Warm } from '../package-provider.ts';
import { storedPython } from '../stored-python.ts';
import type { Installer, InstallerStep } from './installer.ts';
import { hasHashes, plainLock, requirementsOf } from './requirements.ts';

export interface VenvProviderOptions {
  store: EnvironmentStore;
  runs: BuildRuns;
  interpreters: Interpreters;
  installer: Installer;
  indexes: IndexPolicy;
  /** Why no sandbox can be had now. */
  unavailable: () => string | undefined;
  warm?: Warm | undefined;
}

interface Plan {
  venv: Venv;
  requirements: string[];
  python: Interpreter;
  indexes: ChosenIndexes;
}

/** Virtual environments with packages from a Python package index. */
export function createVenvProvider(options: VenvProviderOptions): PackageProvider<unknown> {
  const { store, unavailable, warm } = options;
  return new PackageProvider(store, new VenvPackages(options), { unavailable, warm });
}

class VenvPackages implements PackageKind<Plan> {
  readonly kind = 'venv';
  readonly #options: Omit<VenvProviderOptions, 'store' | 'unavailable' | 'warm'>;

  constructor(options: Omit<VenvProviderOptions, 'store' | 'unavailable' | 'warm'>) {
    this.#options = options;
  }

  async plan(environment: Environment): Promise<Plan> {
    const venv = venvOf(environment);
    // What is wrong with the request comes before what the host lacks.
    const plan = this.#planFor(venv);
    return { ...plan, python: await this.#options.interpreters.find(venv.python) };
  }

  knownPlan(environment: Environment): Plan | undefined {
    const venv = venvOf(environment);
    const python = this.#options.interpreters.findKnown(venv.python);
    return python === undefined ? undefined : { ...this.#planFor(venv), python };
  }

  requestKey({ venv, requirements, python, indexes }: Plan): string {
    return EnvironmentStore.keyOf(['venv', requirements, venv.lock, python.build, indexes.urls]);
  }

  /** Nothing to install needs no resolver. */
  lockOf({ venv, requirements }: Plan): string | undefined {
    return venv.lock !== '' || requirements.length === 0 ? venv.lock : undefined;
  }

  platformOf({ python }: Plan): string {
    return python.abi;
  }

  checkedLock({ requirements, venv }: Plan, lock: string): string {
    const plain = plainLock(lock);
    if (plain !== '' || venv.lock !== '' || requirements.length === 0) return plain;
    throw new EnvironmentError(Code.ENVIRONMENT_FAILED, 'the resolver found no package');
  }

  shapeOf({ python, indexes }: Plan, lock: string): readonly unknown[] {
    return [this.#options.installer.name, process.arch, python.build, indexes.urls, lock];
  }

  factsOf({ python }: Plan): Record<string, string> {
    return { binds: JSON.stringify(python.binds) };
  }

  async resolve(plan: Plan, step: BuildStep): Promise<Resolution> {
    const { installer } = this.#options;
    const lock = await this.#run(installer.resolve(plan.python.path, plan.indexes), requirementsText(plan), plan, step);
    return { lock, sizeBytes: Number(/^# bytes: (\d+)$/m.exec(lock)?.[1] ?? 0) };
  }

  async install(plan: Plan, lock: string, step: BuildStep): Promise<void> {
    const shape = { empty: lock.trim() === '', hashes: hasHashes(lock) };
    const { installer } = this.#options;
    await this.#run(installer.install(plan.python.path, plan.indexes, shape), lock, plan, step, !shape.empty);
  }

  async resolveAndInstall(plan: Plan, step: BuildStep): Promise<string> {
    const { installer } = this.#options;
    const wheels = installer.resolveAndInstallWheels(plan.python.path, plan.indexes);
    const lock = await this.#run(wheels, requirementsText(plan), plan, step);
    if (lock !== '') return lock;
    // Build scripts run: what they do in the sandbox in which they are installed comes too late to change the lock.
    const found = await this.resolve(plan, step);
    await this.install(plan, this.checkedLock(plan, found.lock), step);
    return found.lock;
  }

  async finish(plan: Plan, step: BuildStep): Promise<void> {
    const { installer } = this.#options;
    if (installer.compile !== undefined) await this.#run(installer.compile(plan.python.path), '', plan, step, false);
  }

  startAhead({ python, indexes }: Plan, sandbox: Pick<BuildStep, 'tenant' | 'directories'>): () => void {
    return startBuildAhead(this.#options.runs, { ...sandbox, ...this.#sandboxOf(python, indexes) });
  }

  start(place: EnvironmentPlace, facts: Record<string, string>, preload: readonly string[]): StartEnvironment {
    return storedPython(place, preload, 'VIRTUAL_ENV', JSON.parse(facts.binds ?? '[]'));
  }

  /** With a password only wheels are installed, of which nothing runs meanwhile. */
  #sandboxOf(python: Interpreter, indexes: ChosenIndexes): { binds: Bind[]; closed: boolean } {
    return { binds: [...this.#options.installer.binds, ...python.binds], closed: hasCredentials(indexes) };
  }

  #planFor(venv: Venv): Omit<Plan, 'python'> {
    const requirements = requirementsOf(venv);
    return { venv, requirements, indexes: chooseIndexes(this.#options.indexes, venv.indexUrl, venv.extraIndexUrls) };
  }

  async #run(
    { script, variables }: InstallerStep,
    input: string,
    { python, indexes }: Plan,
    { events, signal, onMade, ...where }: BuildStep,
    online = true,
  ): Promise<string> {
    const { runs } = this.#options;
    const command = {
      ...{ ...where, argv: ['sh', '-c', script], input, variables },
      ...this.#sandboxOf(python, indexes),
      hosts: online ? indexes.hosts : [],
    };
    return await runBuild(runs, command, { ...events, onMade }, signal);
  }
}

function venvOf({ kind }: Environment): Venv {
  if (kind.case === 'venv') return kind.value;
  throw new Error(`a request for "${kind.case}" came to venv`);
}

function requirementsText({ requirements }: Plan): string {
  return `${requirements.join('\n')}\n`;
}
