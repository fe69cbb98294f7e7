import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { type Environment_Conda as Conda, Environment_VenvSchema, EnvironmentSchema } from '@harrier/shared/gen/module';
import type { Bind } from '../../launcher/messages.ts';
import type { PrivateRuns } from '../../launcher/private-runs.ts';
import { SharedTasks, type TaskEvents } from '../../tasks/shared-tasks.ts';
import { type BuildCommand, ENVIRONMENT_PATH, runBuild, TOOLS_PATH } from '../build-runner.ts';
import {
  EnvironmentError,
  type EnvironmentProvider,
  type EnvironmentRequest,
  type PreparationEvents,
  type PreparedEnvironment,
  type ResolvedEnvironment,
} from '../environment.ts';
import { type BuildDirectories, EnvironmentStore } from '../environment-store.ts';
import { chooseIndexes, type IndexPolicy } from '../index-policy.ts';
import { storedPython } from '../stored-python.ts';
import { isWithin, shownUrl } from '../url-scope.ts';
import { uvVariables } from '../venv/installer.ts';
import { checkRequirement, plainLock } from '../venv/requirements.ts';
import { type ChannelPolicy, type ChosenChannels, chooseChannels, toInside, toOutside } from './channel-policy.ts';
import { type CondaLock, type CondaPackage, formatLock, parseLock, pythonVersionOf } from './conda-lock.ts';
import { type CondaSpec, specOf } from './environment-file.ts';

/** The solver: a wheel of the package index, so that no host needs conda and every host solves alike. */
const RATTLER = 'py-rattler==0.28.0';
const RATTLER_PATH = `${TOOLS_PATH}/rattler`;
const DRIVER_PATH = `${TOOLS_PATH}/rattler_driver.py`;
/** Environments of the agent itself; no tenant's id looks like it. */
const OWN_TENANT = '_agent';

export interface CondaProviderOptions {
  store: EnvironmentStore;
  runs: PrivateRuns;
  /** Builds the environment of the solver. */
  venv: EnvironmentProvider;
  channels: ChannelPolicy;
  indexes: IndexPolicy;
  /** For pip sections; absent: they are refused. */
  uv: string | undefined;
  unavailable: () => string | undefined;
}

/** What is forgotten only makes an answer less exact. */
const MAX_SIZES = 1_000;

/** What the driver prints. */
interface Solved {
  packages: CondaPackage[];
  size_bytes: number;
}

interface Plan {
  conda: Conda;
  spec: CondaSpec;
  channels: ChosenChannels;
}

const SILENT: TaskEvents = { onOutput: () => undefined, onProgress: () => undefined };

/** Conda environments, solved and installed by py-rattler in a sandbox. */
export class CondaProvider implements EnvironmentProvider {
  readonly kind = 'conda';
  readonly #options: CondaProviderOptions;
  readonly #resolving = new SharedTasks<string>();
  /** Bytes to download for locks that were solved here, by the key of their environment. */
  readonly #sizes = new Map<string, number>();

  constructor(options: CondaProviderOptions) {
    this.#options = options;
  }

  unavailable(): string | undefined {
    return this.#options.unavailable();
  }

  prepared(request: EnvironmentRequest): PreparedEnvironment | undefined {
    const plan = this.#knownPlan(condaOf(request));
    const held = plan && this.#options.store.holdByRequest(request.tenant, requestKey(plan));
    if (held === undefined) return undefined;
    const prepared = storedPython(held, request.preload, 'CONDA_PREFIX');
    return plan?.conda.lock === '' ? { ...prepared, lock: held.manifest.lock } : prepared;
  }

  holdAll(): { release(): void } {
    return this.#options.store.holdAll();
  }

  async prepare(
    request: EnvironmentRequest,
    events: PreparationEvents,
    signal: AbortSignal,
  ): Promise<PreparedEnvironment> {
    const plan = this.#plan(condaOf(request));
    const { tenant, preload } = request;
    const text = plan.conda.lock || (await this.#decidedLock(tenant, plan, events, signal));
    const lock = this.#checked(plan, text);
    const about = { kind: this.kind, lock: text, facts: {}, request: requestKey(plan) };
    const build = async (directories: BuildDirectories, told: TaskEvents, stop: AbortSignal) => {
      told.onProgress(30, 'installing packages');
      await this.#install(tenant, plan, lock, directories, told, stop);
    };
    const held = await this.#options.store.build(tenant, keyOf(text), about, events, signal, build);
    return storedPython(held, preload, 'CONDA_PREFIX');
  }

  async resolve(request: EnvironmentRequest, signal: AbortSignal): Promise<ResolvedEnvironment> {
    const plan = this.#plan(condaOf(request));
    const lock = plan.conda.lock || (await this.#lockOf(request.tenant, plan, SILENT, signal));
    this.#checked(plan, lock);
    const held = this.#options.store.hold(request.tenant, keyOf(lock));
    held?.release();
    const sizeBytes = held?.manifest.sizeBytes ?? this.#sizes.get(keyOf(lock)) ?? 0;
    return { lock, sizeBytes, held: held !== undefined };
  }

  #plan(conda: Conda): Plan {
    const spec = conda.lock === '' ? specOf(conda) : { dependencies: [], channels: conda.channels, pip: [] };
    for (const requirement of spec.pip) checkRequirement(requirement);
    return { conda, spec, channels: chooseChannels(this.#options.channels, spec.channels) };
  }

  /** The lock that the same request has led to before, or else what it comes to now; another agent's may be first. */
  async #decidedLock(tenant: string, plan: Plan, events: PreparationEvents, signal: AbortSignal): Promise<string> {
    const before = this.#options.store.holdByRequest(tenant, requestKey(plan));
    before?.release();
    return await events.decideLock(before?.manifest.lock ?? (await this.#lockOf(tenant, plan, events, signal)));
  }

  /** As `#plan`; undefined where `prepare` says what is wrong. */
  #knownPlan(conda: Conda): Plan | undefined {
    try {
      return this.#plan(conda);
    } catch (error) {
      if (error instanceof EnvironmentError) return undefined;
      throw error;
    }
  }

  /** A lock may name any URL: it must be of a channel that is allowed. */
  #checked({ channels }: Plan, text: string): CondaLock {
    const lock = parseLock(text);
    for (const { url } of lock.packages) {
      if (channels.urls.some((channel) => isWithin(url, channel))) continue;
      const names = channels.urls.map(shownUrl).join(', ');
      throw new EnvironmentError(
        Code.POLICY_DENIED,
        `the lock names ${shownUrl(url)}, which is of none of the channels ${names}`,
      );
    }
    return { ...lock, pip: plainLock(lock.pip) };
  }

  async #lockOf(tenant: string, plan: Plan, events: TaskEvents, signal: AbortSignal): Promise<string> {
    const { spec, channels } = plan;
    const key = EnvironmentStore.keyOf([tenant, spec, channels.urls]);
    return await this.#resolving.run(key, events, signal, async (told, stop) => {
      told.onProgress(0, 'solving');
      return await this.#options.store.scratch(tenant, stop, async (directories, watched) => {
        const urls = channels.urls.map((url) => toInside(channels, `${url}/`));
        const request = { channels: urls, dependencies: spec.dependencies, cache: '/cache/conda' };
        const printed = await this.#rattler('solve', request, { tenant, directories, channels }, told, watched);
        const answer = JSON.parse(printed.trim().split('\n').at(-1) ?? '{}') as Solved;
        const packages = answer.packages.map(({ url, digest }) => ({ url: toOutside(channels, url), digest }));
        const pip =
          spec.pip.length === 0 ? '' : await this.#pipLock(tenant, spec.pip, packages, directories, told, watched);
        const lock = formatLock({ packages, pip });
        if (this.#sizes.size >= MAX_SIZES) this.#sizes.clear();
        this.#sizes.set(keyOf(lock), answer.size_bytes);
        return lock;
      });
    });
  }

  async #install(
    tenant: string,
    { channels }: Plan,
    lock: CondaLock,
    directories: BuildDirectories,
    events: TaskEvents,
    signal: AbortSignal,
  ): Promise<void> {
    const packages = lock.packages.map(({ url, digest }) => ({ url: toInside(channels, url), digest }));
    const request = { packages, cache: '/cache/conda' };
    await this.#rattler('install', request, { tenant, directories, channels }, events, signal);
    const check =
      '/environment/bin/python -I -S -c "import sys; sys.exit(sys.version_info < (3, 9))" || { echo "the environment has no Python 3.9 or newer: add python to its dependencies" >&2; exit 1; }';
    const pip = `uv pip install --python ${ENVIRONMENT_PATH}/bin/python --break-system-packages --no-deps --require-hashes --compile-bytecode -r /dev/stdin`;
    const indexes = chooseIndexes(this.#options.indexes, '', []);
    const command = {
      ...{ tenant, directories, input: lock.pip, variables: uvVariables(indexes) },
      argv: ['sh', '-c', lock.pip === '' ? check : `${check}; exec ${pip}`],
      ...{ binds: [...this.#uvBinds(), ...channels.binds], hosts: lock.pip === '' ? [] : indexes.hosts },
    };
    await runBuild(this.#options.runs, command, events, signal);
  }

  async #pipLock(
    tenant: string,
    requirements: readonly string[],
    packages: readonly CondaPackage[],
    directories: BuildDirectories,
    events: TaskEvents,
    signal: AbortSignal,
  ): Promise<string> {
    const { indexes, uv, runs } = this.#options;
    if (uv === undefined) {
      throw new EnvironmentError(
        Code.ENVIRONMENT_FAILED,
        'the pip section of environment.yml needs uv on the host of the agent',
      );
    }
    const version = pythonVersionOf(packages);
    if (version === undefined) {
      throw new EnvironmentError(
        Code.ENVIRONMENT_FAILED,
        'the pip section of environment.yml needs python among the dependencies',
      );
    }
    const chosen = chooseIndexes(indexes, '', []);
    const { hosts } = chosen;
    const script = `mkdir -p "$HOME" "$TMPDIR"; exec uv pip compile --python-version ${version} --generate-hashes --no-header --no-annotate --quiet -`;
    const command = {
      ...{ tenant, directories, hosts, argv: ['sh', '-c', script], input: `${requirements.join('\n')}\n` },
      ...{ binds: this.#uvBinds(), variables: uvVariables(chosen) },
    };
    return await runBuild(runs, command, events, signal);
  }

  async #rattler(
    step: 'solve' | 'install',
    request: object,
    { tenant, directories, channels }: Pick<BuildCommand, 'tenant' | 'directories'> & { channels: ChosenChannels },
    events: TaskEvents,
    signal: AbortSignal,
  ): Promise<string> {
    const solver = await this.#solver(events, signal);
    const tree = solver.start?.binds?.find(({ target }) => target === ENVIRONMENT_PATH)?.source ?? '';
    const others = (solver.start?.binds ?? []).filter(({ target }) => target !== ENVIRONMENT_PATH);
    try {
      const command = {
        ...{ tenant, directories, hosts: channels.hosts, input: JSON.stringify(request) },
        argv: [
          'sh',
          '-c',
          `mkdir -p "$HOME" "$TMPDIR"; exec ${RATTLER_PATH}/bin/python -I ${DRIVER_PATH} ${step} ${ENVIRONMENT_PATH}`,
        ],
        binds: [
          { source: tree, target: RATTLER_PATH, writable: false },
          { source: join(import.meta.dirname, 'rattler_driver.py'), target: DRIVER_PATH, writable: false },
          ...others,
          ...channels.binds,
        ],
      };
      return await runBuild(this.#options.runs, command, events, signal);
    } finally {
      solver.release();
    }
  }

  /** The environment of the solver, built when it is first needed. */
  async #solver(events: TaskEvents, signal: AbortSignal): Promise<PreparedEnvironment> {
    const value = create(Environment_VenvSchema, { requirements: [RATTLER] });
    const environment = create(EnvironmentSchema, { kind: { case: 'venv', value } });
    const request = { tenant: OWN_TENANT, environment, language: 'python', preload: [] };
    const told = { ...events, decideLock: async (lock: string) => lock };
    return this.#options.venv.prepared(request) ?? (await this.#options.venv.prepare(request, told, signal));
  }

  #uvBinds(): Bind[] {
    const { uv } = this.#options;
    return uv === undefined ? [] : [{ source: uv, target: `${TOOLS_PATH}/uv`, writable: false }];
  }
}

function condaOf({ environment }: EnvironmentRequest): Conda {
  if (environment.kind.case === 'conda') return environment.kind.value;
  throw new Error(`a request for "${environment.kind.case}" came to conda`);
}

/** Of what a caller wrote, and of the channels that it means now. */
function requestKey({ conda, channels }: Plan): string {
  const { file, dependencies, lock } = conda;
  return EnvironmentStore.keyOf(['conda', file, dependencies, channels.urls, lock]);
}

function keyOf(lock: string): string {
  return EnvironmentStore.keyOf(['conda', process.platform, process.arch, lock]);
}
