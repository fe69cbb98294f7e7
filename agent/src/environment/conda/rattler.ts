import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { Environment_VenvSchema, EnvironmentSchema } from '@harrier/shared/gen/module';
import { ENVIRONMENT_PATH, runBuild, TOOLS_PATH } from '../build-runner.ts';
import type { BuildRuns } from '../build-runs.ts';
import type { EnvironmentProvider, PreparedEnvironment } from '../environment.ts';
import type { BuildStep } from '../package-provider.ts';
import { type ChosenChannels, hasSecrets, toInside, toOutside } from './channel-policy.ts';
import type { CondaPackage } from './conda-lock.ts';

/** The solver: a wheel of the package index, so that no host needs conda and every host solves alike. */
const RATTLER = 'py-rattler==0.28.0';
const RATTLER_PATH = `${TOOLS_PATH}/rattler`;
const DRIVER_PATH = `${TOOLS_PATH}/rattler_driver.py`;
const CACHE = '/cache/conda';
/** Environments of the agent itself; no tenant's id looks like it. */
const OWN_TENANT = '_agent';

/** What the driver prints. */
interface Solved {
  packages: CondaPackage[];
  size_bytes: number;
}

/** Solves and installs conda packages in the build's sandbox, by `rattler_driver.py`. */
export class Rattler {
  readonly #runs: BuildRuns;
  readonly #venv: EnvironmentProvider;

  /** @param venv builds the environment of the solver */
  constructor(runs: BuildRuns, venv: EnvironmentProvider) {
    this.#runs = runs;
    this.#venv = venv;
  }

  /** @throws EnvironmentError in the solver's own words */
  async solve(
    dependencies: readonly string[],
    channels: ChosenChannels,
    step: BuildStep,
  ): Promise<{ packages: CondaPackage[]; sizeBytes: number }> {
    const urls = channels.urls.map((url) => toInside(channels, `${url}/`));
    const printed = await this.#run('solve', { channels: urls, dependencies, cache: CACHE }, channels, step);
    const { packages, size_bytes } = JSON.parse(printed.trim().split('\n').at(-1) ?? '{}') as Solved;
    return {
      packages: packages.map(({ url, digest }) => ({ url: toOutside(channels, url), digest })),
      sizeBytes: size_bytes,
    };
  }

  /**
   * @param closed a later step is given a password, and runs what is installed here
   * @throws EnvironmentError in the solver's own words
   */
  async install(
    packages: readonly CondaPackage[],
    channels: ChosenChannels,
    closed: boolean,
    step: BuildStep,
  ): Promise<void> {
    const inside = packages.map(({ url, digest }) => ({ url: toInside(channels, url), digest }));
    await this.#run('install', { packages: inside, cache: CACHE }, channels, step, closed);
  }

  async #run(
    what: 'solve' | 'install',
    request: object,
    channels: ChosenChannels,
    { events, signal, ...where }: BuildStep,
    closed = false,
  ): Promise<string> {
    const solver = await this.#solver({ events, signal, ...where });
    const binds = solver.start?.binds ?? [];
    const tree = binds.find(({ target }) => target === ENVIRONMENT_PATH)?.source ?? '';
    const script = `mkdir -p "$HOME" "$TMPDIR"; exec ${RATTLER_PATH}/bin/python -I ${DRIVER_PATH} ${what} ${ENVIRONMENT_PATH}`;
    try {
      const command = {
        ...{ ...where, hosts: channels.hosts, argv: ['sh', '-c', script] },
        input: JSON.stringify({ ...request, names: channels.names }),
        closed: closed || hasSecrets(channels),
        binds: [
          { source: tree, target: RATTLER_PATH, writable: false },
          { source: join(import.meta.dirname, 'rattler_driver.py'), target: DRIVER_PATH, writable: false },
          ...binds.filter(({ target }) => target !== ENVIRONMENT_PATH),
          ...channels.binds,
        ],
      };
      return await runBuild(this.#runs, command, events, signal);
    } finally {
      solver.release();
    }
  }

  /** The environment of the solver, built when it is first needed. */
  async #solver({ events, signal }: BuildStep): Promise<PreparedEnvironment> {
    const value = create(Environment_VenvSchema, { requirements: [RATTLER] });
    const environment = create(EnvironmentSchema, { kind: { case: 'venv', value } });
    const request = { tenant: OWN_TENANT, environment, language: 'python', preload: [], partOnly: true } as const;
    const told = { ...events, decideLock: async (lock: string) => lock, onGpusTaken: () => {} };
    return this.#venv.prepared(request) ?? (await this.#venv.prepare(request, told, signal));
  }
}
