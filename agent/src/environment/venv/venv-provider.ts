import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Environment_Venv as Venv } from '@harrier/shared/gen/module';
import type { PrivateRuns } from '../../launcher/private-runs.ts';
import { SharedTasks, type TaskEvents } from '../../tasks/shared-tasks.ts';
import { runBuild } from '../build-runner.ts';
import {
  EnvironmentError,
  type EnvironmentProvider,
  type EnvironmentRequest,
  type PreparationEvents,
  type PreparedEnvironment,
  type ResolvedEnvironment,
} from '../environment.ts';
import { type BuildDirectories, EnvironmentStore, type HeldEnvironment } from '../environment-store.ts';
import { type ChosenIndexes, chooseIndexes, type IndexPolicy } from '../index-policy.ts';
import type { Interpreter, Interpreters } from '../interpreters.ts';
import { storedPython } from '../stored-python.ts';
import type { Installer } from './installer.ts';
import { hasHashes, plainLock, requirementsOf } from './requirements.ts';

export interface VenvProviderOptions {
  store: EnvironmentStore;
  runs: PrivateRuns;
  interpreters: Interpreters;
  installer: Installer;
  indexes: IndexPolicy;
  /** Why no sandbox can be had now. */
  unavailable: () => string | undefined;
}

/** What a request comes to, before anything is installed. */
interface Plan {
  venv: Venv;
  requirements: string[];
  python: Interpreter;
  indexes: ChosenIndexes;
}

const SILENT: TaskEvents = { onOutput: () => undefined, onProgress: () => undefined };

/** Virtual environments with packages from a Python package index. */
export class VenvProvider implements EnvironmentProvider {
  readonly kind = 'venv';
  readonly #options: VenvProviderOptions;
  readonly #resolving = new SharedTasks<string>();

  constructor(options: VenvProviderOptions) {
    this.#options = options;
  }

  unavailable(): string | undefined {
    return this.#options.unavailable();
  }

  prepared(request: EnvironmentRequest): PreparedEnvironment | undefined {
    const plan = this.#knownPlan(venvOf(request));
    const held = plan && this.#options.store.holdByRequest(request.tenant, requestKey(plan));
    if (held === undefined) return undefined;
    const prepared = storedVenv(held, request.preload);
    return plan?.venv.lock === '' ? { ...prepared, lock: held.manifest.lock } : prepared;
  }

  holdAll(): { release(): void } {
    return this.#options.store.holdAll();
  }

  async prepare(
    request: EnvironmentRequest,
    events: PreparationEvents,
    signal: AbortSignal,
  ): Promise<PreparedEnvironment> {
    const plan = await this.#plan(venvOf(request));
    const { tenant, preload } = request;
    const { store } = this.#options;
    const lock = plainLock(plan.venv.lock || (await this.#decidedLock(tenant, plan, events, signal)));
    const facts = { binds: JSON.stringify(plan.python.binds) };
    const about = { kind: this.kind, lock, facts, request: requestKey(plan) };
    const held = await store.build(
      tenant,
      this.#keyOf(plan, lock),
      about,
      events,
      signal,
      async (directories, told, stop) => {
        told.onProgress(30, 'installing packages');
        await this.#install(tenant, plan, lock, directories, told, stop);
      },
    );
    return storedVenv(held, preload);
  }

  async resolve(request: EnvironmentRequest, signal: AbortSignal): Promise<ResolvedEnvironment> {
    const plan = await this.#plan(venvOf(request));
    const lock = plainLock(plan.venv.lock || (await this.#lockOf(request.tenant, plan, SILENT, signal)));
    const held = this.#options.store.hold(request.tenant, this.#keyOf(plan, lock));
    held?.release();
    return { lock, sizeBytes: held?.manifest.sizeBytes ?? 0, held: held !== undefined };
  }

  async #plan(venv: Venv): Promise<Plan> {
    const { interpreters, indexes } = this.#options;
    const requirements = requirementsOf(venv);
    const chosen = chooseIndexes(indexes, venv.indexUrl, venv.extraIndexUrls);
    return { venv, requirements, indexes: chosen, python: await interpreters.find(venv.python) };
  }

  /** As `#plan`, from what is known already; undefined where `prepare` has to look, or says what is wrong. */
  #knownPlan(venv: Venv): Plan | undefined {
    const python = this.#options.interpreters.findKnown(venv.python);
    if (python === undefined) return undefined;
    try {
      const indexes = chooseIndexes(this.#options.indexes, venv.indexUrl, venv.extraIndexUrls);
      return { venv, requirements: requirementsOf(venv), indexes, python };
    } catch (error) {
      if (error instanceof EnvironmentError) return undefined;
      throw error;
    }
  }

  /** The lock that the same request has led to before, or else what it comes to now; another agent's may be first. */
  async #decidedLock(tenant: string, plan: Plan, events: PreparationEvents, signal: AbortSignal): Promise<string> {
    const before = this.#options.store.holdByRequest(tenant, requestKey(plan));
    before?.release();
    const lock = before?.manifest.lock ?? (await this.#lockOf(tenant, plan, events, signal));
    return lock === '' ? '' : await events.decideLock(lock);
  }

  #keyOf({ python, indexes }: Plan, lock: string): string {
    const { installer } = this.#options;
    return EnvironmentStore.keyOf([this.kind, installer.name, process.arch, python.build, indexes.urls, lock]);
  }

  /** What every package resolves to now. Nothing to install needs no resolver. */
  async #lockOf(tenant: string, plan: Plan, events: TaskEvents, signal: AbortSignal): Promise<string> {
    const { requirements, python, indexes } = plan;
    if (requirements.length === 0) return '';
    const { installer, runs, store } = this.#options;
    const key = EnvironmentStore.keyOf([tenant, python.build, indexes.urls, requirements]);
    return await this.#resolving.run(key, events, signal, async (told, stop) => {
      told.onProgress(0, 'resolving packages');
      const { script, variables } = installer.resolve(python.path, indexes);
      const found = await store.scratch(tenant, stop, async (directories, watched) => {
        const command = {
          ...{ tenant, argv: ['sh', '-c', script], input: `${requirements.join('\n')}\n`, variables, directories },
          ...{ binds: [...installer.binds, ...python.binds], hosts: indexes.hosts },
        };
        return await runBuild(runs, command, told, watched);
      });
      const lock = plainLock(found);
      if (lock === '') throw new EnvironmentError(Code.ENVIRONMENT_FAILED, 'the resolver found no package');
      return lock;
    });
  }

  async #install(
    tenant: string,
    { python, indexes }: Plan,
    lock: string,
    directories: BuildDirectories,
    events: TaskEvents,
    signal: AbortSignal,
  ): Promise<void> {
    const { installer, runs } = this.#options;
    const shape = { empty: lock.trim() === '', hashes: hasHashes(lock) };
    const { script, variables } = installer.install(python.path, indexes, shape);
    const command = {
      ...{ tenant, argv: ['sh', '-c', script], input: lock, variables, directories },
      ...{ binds: [...installer.binds, ...python.binds], hosts: shape.empty ? [] : indexes.hosts },
    };
    await runBuild(runs, command, events, signal);
  }
}

function venvOf({ environment }: EnvironmentRequest): Venv {
  if (environment.kind.case === 'venv') return environment.kind.value;
  throw new Error(`a request for "${environment.kind.case}" came to venv`);
}

/**
 * Of what a caller wrote and what it means on this host now: the same request finds the same environment without resolving it
 * again, until the operator changes the index or the system its Python.
 */
function requestKey({ venv, requirements, python, indexes }: Plan): string {
  return EnvironmentStore.keyOf(['venv', requirements, venv.lock, python.build, indexes.urls]);
}

function storedVenv(held: HeldEnvironment, preload: readonly string[]): PreparedEnvironment {
  return storedPython(held, preload, 'VIRTUAL_ENV', JSON.parse(held.manifest.facts.binds ?? '[]'));
}
