import { type BackoffOptions, fullJitterMs, type Logger, messageOf } from '@harrier/shared';
import { EnvironmentRegistry } from './environment/environment-registry.ts';
import { InlineEnvironment } from './environment/inline-environment.ts';
import type { PackageProviders } from './environment/package-providers.ts';
import type { ExecutorEvents } from './executor/executor.ts';
import { SlurmExecutor, type SlurmExecutorOptions } from './executor/slurm-executor.ts';
import { SharedDirectory } from './slurm/shared-directory.ts';
import { SlurmCluster } from './slurm/slurm-cluster.ts';
import { slurmTools } from './slurm/slurm-tools.ts';
import type { SlurmSettings } from './slurm-settings.ts';

type Providers = Pick<PackageProviders, 'providers' | 'close'>;

export interface SlurmPartsOptions {
  settings: SlurmSettings & { directory: string };
  dataDir: string;
  /** Where the nodes have the device nodes of their cards. */
  gpuDevRoot: string;
  searchPath: string;
  /** Code may run without a sandbox where a node has none. */
  allowUnsandboxed: boolean;
  /** What calls with network INDEX may reach, each `HOST:PORT`. */
  indexHosts: readonly string[];
  /** Environments that are built in a directory. */
  createProviders: (directory: string) => Promise<Providers>;
  events: ExecutorEvents;
  /** Another agent may take an attempt. Answers whether that was told. */
  onRefused: SlurmExecutorOptions['onRefused'];
  /** Until when the agent owns its attempts, from now on; null: there is no end. Undefined: that is not known. */
  lease: () => { leftMs: () => number | null; graceMs: number } | undefined;
  onSupportChange: () => void;
  logger: Logger;
}

/** Everything of an agent that has to do with Slurm. */
export interface SlurmParts {
  executor: SlurmExecutor;
  /** What jobs run in. */
  environments: EnvironmentRegistry;
  /** Why nothing can be submitted now; undefined when it can. */
  unavailable(): string | undefined;
  /** The lease has another end. */
  leaseChanged(): void;
  /** Takes up what a former agent has left; whether the cluster and the directory are there shows in its own time. */
  open(): void;
  close(): Promise<void>;
}

const RETRY: BackoffOptions = { initialMs: 1_000, maxMs: 60_000, multiplier: 2 };

export function createSlurmParts(options: SlurmPartsOptions): SlurmParts {
  const { settings, dataDir, searchPath, logger, onSupportChange } = options;
  const { directory, partition, python, maxJobs, configuration } = settings;
  const shared = new SharedDirectory(directory, dataDir);
  const cluster = new SlurmCluster({
    run: slurmTools({ searchPath, configuration }),
    user: String(process.getuid?.() ?? 0),
    isBusy: () => executor.jobs > 0,
    logger,
  });
  const executor = new SlurmExecutor({
    ...{ cluster, shared, dataDir, partition, python, maxJobs },
    gpuDevRoot: options.gpuDevRoot,
    flags: options.allowUnsandboxed ? ['--allow-unsandboxed'] : [],
    unavailable,
    ...{ indexHosts: options.indexHosts, events: options.events, onRefused: options.onRefused, logger },
  });
  const environments = new EnvironmentRegistry(() => {});
  environments.add(new InlineEnvironment());
  const closed = new AbortController();
  let fault: string | undefined = `the shared directory ${directory} was not looked at yet`;
  let providers: Providers | undefined;

  function unavailable(): string | undefined {
    return fault ?? cluster.unavailable();
  }

  async function openShared(): Promise<void> {
    for (let failures = 0; !closed.signal.aborted; failures++) {
      try {
        await shared.open(executor.jobs > 0);
        providers ??= await options.createProviders(shared.environments);
        if (closed.signal.aborted) return await providers.close();
        for (const provider of providers.providers) environments.add(provider);
        fault = undefined;
        onSupportChange();
        renew();
        await shared.removeOthers((name) => executor.has(name));
        const builds = await shared.removeOldBuilds();
        if (builds.length > 0) logger.info({ builds }, 'runtime of former versions removed from the shared directory');
        return;
      } catch (error) {
        const reason = messageOf(error);
        if (fault === undefined) {
          logger.warn({ reason }, 'what former agents have left in the shared directory was not removed');
          return;
        }
        fault = `the shared directory ${directory} cannot be used: ${reason}`;
        logger.warn({ reason }, 'the directory shared with Slurm cannot be used; trying again');
        onSupportChange();
        await pause(fullJitterMs(failures, RETRY), closed.signal);
      }
    }
  }

  function renew(): void {
    const lease = options.lease();
    if (fault !== undefined || lease === undefined) return;
    shared.renew(lease.leftMs, lease.graceMs).catch((error) => {
      logger.error({ reason: messageOf(error) }, 'jobs of Slurm cannot be told that the agent still owns them');
    });
  }

  cluster.onChange(onSupportChange);
  return {
    executor,
    environments,
    unavailable,
    leaseChanged: renew,
    open: () => {
      executor.open();
      void openShared();
      void cluster.open();
    },
    close: async () => {
      closed.abort();
      cluster.close();
      executor.close();
      await providers?.close();
    },
  };
}

/** Ends with the signal too. */
async function pause(ms: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  signal.addEventListener('abort', () => resolve(), { once: true });
  await promise;
  clearTimeout(timer);
}
