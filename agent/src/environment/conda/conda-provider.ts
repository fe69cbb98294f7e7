import { ENVIRONMENT_BOUNDS } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Environment_Conda as Conda, Environment } from '@harrier/shared/gen/module';
import type { StartEnvironment } from '../../launcher/messages.ts';
import { checkLength } from '../bounded-text.ts';
import type { BuildRuns } from '../build-runs.ts';
import { EnvironmentError, type EnvironmentProvider } from '../environment.ts';
import { type EnvironmentPlace, EnvironmentStore } from '../environment-store.ts';
import type { IndexPolicy } from '../index-policy.ts';
import { type BuildStep, type PackageKind, PackageProvider, type Resolution } from '../package-provider.ts';
import { storedPython } from '../stored-python.ts';
import { shownUrl } from '../url-scope.ts';
import { checkRequirement, plainLock } from '../venv/requirements.ts';
import { type ChannelPolicy, type ChosenChannels, chooseChannels, isOfChannels } from './channel-policy.ts';
import { type CondaLock, formatLock, parseLock } from './conda-lock.ts';
import { type CondaSpec, specOf } from './environment-file.ts';
import { PipSection } from './pip-section.ts';
import { Rattler } from './rattler.ts';

export interface CondaProviderOptions {
  store: EnvironmentStore;
  runs: BuildRuns;
  /** Builds the environment of the solver. */
  venv: EnvironmentProvider;
  channels: ChannelPolicy;
  indexes: IndexPolicy;
  /** For pip sections; absent: they are refused. */
  uv: string | undefined;
  unavailable: () => string | undefined;
}

const ARCHITECTURES: Readonly<Record<string, string>> = { x64: '64', arm64: 'aarch64', ppc64: 'ppc64le' };

interface Plan {
  conda: Conda;
  spec: CondaSpec;
  channels: ChosenChannels;
}

/** Conda environments, solved and installed by py-rattler in a sandbox. */
export function createCondaProvider(options: CondaProviderOptions): PackageProvider<unknown> {
  const { store, unavailable } = options;
  return new PackageProvider(store, new CondaPackages(options), { unavailable });
}

class CondaPackages implements PackageKind<Plan> {
  readonly kind = 'conda';
  readonly #policy: ChannelPolicy;
  readonly #rattler: Rattler;
  readonly #pip: PipSection;

  constructor({ channels, runs, venv, indexes, uv }: CondaProviderOptions) {
    this.#policy = channels;
    this.#rattler = new Rattler(runs, venv);
    this.#pip = new PipSection(runs, indexes, uv);
  }

  async plan(environment: Environment): Promise<Plan> {
    return this.knownPlan(environment);
  }

  knownPlan(environment: Environment): Plan {
    const conda = condaOf(environment);
    checkLength('the lock', conda.lock, ENVIRONMENT_BOUNDS.lockChars);
    const spec = conda.lock === '' ? specOf(conda) : { dependencies: [], channels: conda.channels, pip: [] };
    for (const requirement of spec.pip) checkRequirement(requirement);
    return { conda, spec, channels: chooseChannels(this.#policy, spec.channels) };
  }

  requestKey({ conda: { file, dependencies, lock }, channels }: Plan): string {
    return EnvironmentStore.keyOf(['conda', file, dependencies, channels.urls, this.#pip.indexUrls, lock]);
  }

  lockOf({ conda }: Plan): string | undefined {
    return conda.lock === '' ? undefined : conda.lock;
  }

  /** As conda names it. */
  platformOf(): string {
    return `${process.platform}-${ARCHITECTURES[process.arch] ?? process.arch}`;
  }

  checkedLock({ channels }: Plan, text: string): string {
    checkedLock(channels, text);
    return text;
  }

  shapeOf(_plan: Plan, lock: string): readonly unknown[] {
    return [process.platform, process.arch, lock];
  }

  factsOf(): Record<string, string> {
    return {};
  }

  async resolve({ spec, channels }: Plan, step: BuildStep): Promise<Resolution> {
    const { packages, sizeBytes } = await this.#rattler.solve(spec.dependencies, channels, step);
    const pip = await this.#pip.resolve(spec.pip, packages, step);
    return { lock: formatLock({ packages, pip }), sizeBytes };
  }

  async install({ channels }: Plan, text: string, step: BuildStep): Promise<void> {
    const { packages, pip } = checkedLock(channels, text);
    await this.#rattler.install(packages, channels, this.#pip.hasSecrets(pip), step);
    await this.#pip.install(pip, channels.binds, step);
  }

  async resolveAndInstall(plan: Plan, step: BuildStep): Promise<string> {
    const { lock } = await this.resolve(plan, step);
    await this.install(plan, lock, step);
    return lock;
  }

  start(place: EnvironmentPlace, _facts: Record<string, string>, preload: readonly string[]): StartEnvironment {
    return storedPython(place, preload, 'CONDA_PREFIX');
  }
}

function condaOf({ kind }: Environment): Conda {
  if (kind.case === 'conda') return kind.value;
  throw new Error(`a request for "${kind.case}" came to conda`);
}

/** A lock may name any URL: it must be of a channel that is allowed. */
function checkedLock(channels: ChosenChannels, text: string): CondaLock {
  const lock = parseLock(text);
  for (const { url } of lock.packages) {
    if (isOfChannels(channels, url)) continue;
    const names = channels.urls.map(shownUrl).join(', ');
    const message = `the lock names ${shownUrl(url)}, which is of none of the channels ${names}`;
    throw new EnvironmentError(Code.POLICY_DENIED, message);
  }
  return { ...lock, pip: plainLock(lock.pip) };
}
