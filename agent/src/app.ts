import { hostname } from 'node:os';
import { create, equals } from '@bufbuild/protobuf';
import { HarrierError, type Logger, lockDirectory, openTracing, Systemd } from '@harrier/shared';
import { type HostLoad, type Isolation, IsolationSchema, Isolation_Level as Level } from '@harrier/shared/gen/agent';
import { AgentMessageSchema, type ClearGpu, type ServerMessage, type Welcome } from '@harrier/shared/gen/link';
import { Capacity } from './capacity.ts';
import { type AgentConfig, ConfigError } from './config.ts';
import { containerEngineProbe, createDockerParts } from './docker-parts.ts';
import { buildBounds } from './environment/build-runs.ts';
import { EnvironmentRegistry } from './environment/environment-registry.ts';
import { chooseIndexes } from './environment/index-policy.ts';
import { InlineEnvironment } from './environment/inline-environment.ts';
import { NodejsEnvironment } from './environment/nodejs-environment.ts';
import { createPackageProviders, type PackageProvidersOptions } from './environment/package-providers.ts';
import { launcherGuard } from './executor/container-guard.ts';
import type { Executor } from './executor/executor.ts';
import { launcherEvents } from './executor/launcher-events.ts';
import { ProcessExecutor } from './executor/process-executor.ts';
import { durationMs } from './executor/start-message.ts';
import { isNamed, isShared } from './gpu/gpu-selection.ts';
import { createGpuParts } from './gpu-parts.ts';
import { HardwareMonitor } from './hardware/hardware-monitor.ts';
import { createHostLoadReader } from './hardware/host-load.ts';
import { createProbes } from './hardware/probes.ts';
import { Heartbeat } from './heartbeat.ts';
import { createHello } from './hello.ts';
import { AgentIdentity } from './identity/agent-identity.ts';
import { AttemptTable } from './job/attempt-table.ts';
import { LeaseWatch } from './job/lease-watch.ts';
import { Resolutions } from './job/resolutions.ts';
import { Launcher } from './launcher/launcher.ts';
import { LauncherRenewal } from './launcher/launcher-renewal.ts';
import { PrivateRuns } from './launcher/private-runs.ts';
import { buildOf, startLauncher } from './launcher/start-launcher.ts';
import { launcherOptionsOf } from './launcher-options.ts';
import { bootNowMs } from './lease/boot-clock.ts';
import { Lease } from './lease/lease.ts';
import { AgentLink } from './link/agent-link.ts';
import { LINK_TIMINGS } from './link/link-timings.ts';
import { advertisedAddress } from './metrics/advertised-address.ts';
import { AgentMetrics } from './metrics/agent-metrics.ts';
import { type Health, serveMetrics } from './metrics/metrics-server.ts';
import { ServiceMetrics } from './metrics/service-metrics.ts';
import { createServices } from './services/services.ts';
import { createSlurmParts } from './slurm-parts.ts';
import { Stopper } from './stopper.ts';
import { AgentWatchdog } from './systemd/agent-watchdog.ts';

/** Slow tools of the host delay the first hello only so long; what they say comes with a heartbeat. */
const HARDWARE_DEADLINE_MS = 5_000;
/** What the schema promises when a welcome does not say. */
const HEARTBEAT_MS = 10_000;

export interface Agent {
  /** Settled when the agent is gone: undefined when it was asked to stop, else why the control plane does not want it. */
  ended: Promise<string | undefined>;
  /** Lets running work end and stops; a second call stops running work at once. */
  stop(): void;
}

/**
 * Starts an agent: takes its data directory, finds or starts its launcher, looks at the host, and opens the link.
 * @throws HarrierError or ConfigError, when it cannot work here; nothing is left open then
 */
export async function startAgent(config: AgentConfig, logger: Logger): Promise<Agent> {
  const cleanup = new AsyncDisposableStack();
  try {
    return await start(config, logger, cleanup);
  } catch (error) {
    await cleanup.disposeAsync();
    throw error;
  }
}

async function start(config: AgentConfig, logger: Logger, cleanup: AsyncDisposableStack): Promise<Agent> {
  const lock = lockDirectory(config.dataDir, { holder: 'agent', mode: 0o700 });
  cleanup.defer(() => lock.release());
  const identity = AgentIdentity.open(config.dataDir);
  if (identity.agentId === '' && config.joinToken === '') {
    throw new ConfigError([`HARRIER_JOIN_TOKEN is missing: the agent in ${config.dataDir} has not joined yet`]);
  }

  /** What the launcher and the control plane have told last. */
  const told = {
    isolation: create(IsolationSchema),
    python: undefined as string | undefined,
    launcherPid: undefined as number | undefined,
    /** When the launcher that answers was started, by `bootNowMs`; undefined: none answers, or it does not say. */
    launcherStartMs: undefined as number | undefined,
    launcherLoad: { active: 0, zygotes: 0, workers: 0, spoolBytes: 0 },
    /** Times that the launcher was lost. */
    launcherLosses: 0,
    load: undefined as HostLoad | undefined,
    draining: false,
    /** When the hello of the newest link was sent. */
    helloMs: 0,
  };
  const ended = Promise.withResolvers<string | undefined>();

  const tracing = await openTracing(config.tracing, 'harrier-agent', logger);
  cleanup.defer(() => tracing.stop());
  const environments = new EnvironmentRegistry(() => heartbeat.beat());
  environments.add(new InlineEnvironment());
  const gpus = createGpuParts({
    dataDir: config.dataDir,
    selection: config.gpus,
    devRoot: config.gpuDevRoot,
    searchPath: config.searchPath,
    onChange: () => {
      hardware.set('gpus', probes.gpus.facts());
      services.gpusChanged();
    },
    logger,
  });
  cleanup.defer(() => gpus.close());
  const table = new AttemptTable({
    environments,
    slurmEnvironments: () => slurm?.environments,
    slots: config.slots,
    caps: {
      cpu: config.cpus,
      memoryBytes: config.maxMemoryBytes,
      tmpBytes: config.maxTmpBytes,
      network: config.maxNetwork,
    },
    gpus: gpus.keeper,
    send: (message) => link.send(message),
    onFinished: (finished) => metrics.attempts.observeFinished(finished),
    onEnvironmentPrepared: (prepared) => metrics.attempts.observePrepared(prepared),
    onRejected: (rejected) => metrics.attempts.observeRejected(rejected),
    tracing,
    onQuiet: () => stopper.notice(),
    onForgotten: () => renewal.notice(),
    logger,
  });
  const runs = new PrivateRuns(
    () => launcher,
    () => renewal.notice(),
  );
  const bounds = buildBounds(config.maxMemoryBytes);
  const launcherOptions = await launcherOptionsOf(config);
  const launcher = new Launcher({
    socketPath: config.launcherSocketPath,
    start: config.startLauncher ? () => startLauncher(launcherOptions) : undefined,
    lease: () => {
      const { untilMs, graceMs } = lease.told ?? {};
      return graceMs === undefined ? undefined : { until_ms: untilMs ?? null, grace_ms: graceMs };
    },
    events: runs.intercept(
      launcherEvents(() => processes, table, {
        onIsolation: (level, cgroupLimits) => {
          const isolation = isolationOf(level, cgroupLimits);
          if (equals(IsolationSchema, isolation, told.isolation)) return;
          told.isolation = isolation;
          heartbeat.beat();
        },
        onPython: (path) => {
          told.python = path;
        },
        onLoad: (load) => {
          const { active, zygotes, workers, spool_bytes: spoolBytes } = load;
          told.launcherLoad = { active, zygotes, workers, spoolBytes };
        },
        onLost: () => {
          told.launcherLosses++;
          told.launcherStartMs = undefined;
        },
        onLauncher: (pid, ageMs) => {
          told.launcherStartMs = ageMs === undefined ? undefined : bootNowMs() - ageMs;
          docker.pool.onLauncher(pid);
          docker.executor.guardAll();
          leaseWatch.onLauncher();
          // After the table knows what the launcher has.
          queueMicrotask(() => renewal.notice());
          if (pid !== told.launcherPid && told.launcherPid !== undefined) void nodejs.look();
          told.launcherPid = pid;
        },
        onAttached: (tenant, key) => docker.pool.onAttached(tenant, key),
        onDetached: (_, key, reason) => docker.pool.onDetached(key, reason),
      }),
    ),
    logger,
  });
  const processes: Executor = new ProcessExecutor(launcher, indexHosts(config), (uuids) =>
    told.isolation.level === Level.NONE ? undefined : gpus.devices.access(uuids),
  );
  table.addExecutor(processes);
  const renewal = new LauncherRenewal({
    launcher,
    build: buildOf(launcherOptions),
    // Containers of single calls are the engine's, jobs the cluster's.
    isIdle: () => table.size === elsewhere() && runs.active === 0 && stopper.state === 'running',
    logger,
  });
  const docker = createDockerParts({
    settings: config.docker,
    dataDir: config.dataDir,
    memoryBytes: config.maxMemoryBytes,
    tmpBytes: config.maxTmpBytes,
    minFreeBytes: config.environments.minFreeBytes,
    host: launcher,
    guard: launcherGuard(launcher, config.docker.socketPath),
    events: table,
    onRefused: (key, error) => table.onRefused(key, error),
    onSupportChange: () => environments.supportChanged(),
    logger,
  });
  const services = createServices({
    settings: config.services,
    engine: docker.engine,
    socketPath: config.docker.socketPath,
    credentialsPath: config.docker.credentialsPath,
    dataDir: config.dataDir,
    isGivenGpu: (uuid) => isNamed(config.gpus, uuid),
    isSharedGpu: (uuid) => isShared(config.gpus, uuid, gpus.keeper),
    events: {
      onStarted: (service) => serviceMetrics.onStarted(service),
      onStopped: (service) => serviceMetrics.onStopped(service),
      onEngineCall: (call) => serviceMetrics.onEngineCall(call),
    },
    onChange: () => heartbeat.beat(),
    logger,
  });
  environments.add(docker.environment);
  table.addExecutor(docker.executor);
  const needsSandbox = () =>
    told.isolation.level === Level.NONE ? 'environments need the sandbox, which this agent runs without' : undefined;
  const nodejs = new NodejsEnvironment({
    searchPath: config.searchPath,
    runs,
    unavailable: needsSandbox,
    onSupportChange: () => environments.supportChanged(),
    logger,
  });
  environments.add(nodejs);
  cleanup.defer(() => nodejs.close());
  const packageOptions: PackageProvidersOptions = {
    settings: config.environments,
    indexUrl: config.indexUrl,
    dataDir: config.dataDir,
    searchPath: config.searchPath,
    runs,
    bounds,
    warm: (tenant, environment) => launcher.warm(tenant, environment),
    retire: (tenant, startKey) => launcher.retire(tenant, startKey),
    python: () => told.python,
    unavailable: needsSandbox,
    logger,
  };
  const packages = await createPackageProviders(packageOptions);
  cleanup.defer(() => packages.close());
  for (const provider of packages.providers) environments.add(provider);
  const { directory } = config.slurm;
  const slurm =
    directory === undefined
      ? undefined
      : createSlurmParts({
          settings: { ...config.slurm, directory },
          dataDir: config.dataDir,
          gpuDevRoot: config.gpuDevRoot,
          searchPath: config.searchPath,
          allowUnsandboxed: config.allowUnsandboxed,
          indexHosts: indexHosts(config),
          createProviders: (shared) => {
            return createPackageProviders({
              ...packageOptions,
              settings: { ...config.environments, directory: shared },
              // Its calls run on nodes of the cluster.
              warm: undefined,
            });
          },
          events: table,
          onRefused: (key, error) => table.onRefused(key, error),
          lease: () => {
            if (lease.told === undefined) return undefined;
            const leftMs = () => (lease.endMs === undefined ? null : Math.max(0, lease.endMs - bootNowMs()));
            return { leftMs, graceMs: lease.graceMs };
          },
          onSupportChange: () => environments.supportChanged(),
          logger,
        });
  if (slurm !== undefined) {
    environments.addCapability('slurm', slurm.unavailable);
    table.addExecutor(slurm.executor);
    cleanup.defer(() => slurm.close());
  }
  /** What the launcher keeps, and what those keep whose attempts are not the launcher's. */
  const spoolBytes = () =>
    told.launcherLoad.spoolBytes + docker.executor.unacknowledgedBytes + (slurm?.executor.unacknowledgedBytes ?? 0);
  const elsewhere = () => table.sizeOf(docker.executor) + (slurm === undefined ? 0 : table.sizeOf(slurm.executor));

  const probes = {
    ...createProbes(config.searchPath, gpus.keeper),
    'container-engine': containerEngineProbe(docker.engine),
  };
  const hardware = new HardwareMonitor({
    probes,
    onChange: () => heartbeat.beat(),
    logger,
  });
  const capacity = new Capacity({
    cpu: config.cpus,
    memoryBytes: config.memoryBytes,
    gpus: () => gpus.keeper.capacity,
    // While the cluster cannot be asked, the environment says so.
    slurmJobs: () => (slurm === undefined ? 0 : config.slurm.maxJobs),
  });
  const readLoad = createHostLoadReader();
  const lease = new Lease({
    onChange: () => {
      launcher.tellLease();
      slurm?.leaseChanged();
    },
    onStale: (reason) => link.leave(reason),
  });
  const leaseWatch = new LeaseWatch({
    isEnforced: () => launcher.enforcesLease,
    lease,
    nowMs: bootNowMs,
    table,
    logger,
  });
  cleanup.defer(() => leaseWatch.stop());
  const watchdog = new AgentWatchdog(new Systemd(config.systemd, logger));
  const heartbeat = new Heartbeat(
    {
      number: () => lease.beat(),
      load: () => {
        told.load = readLoad(spoolBytes());
        return told.load;
      },
      activeExecutions: () => table.active + table.activeJobs,
      changedHardware: () => hardware.tellChange(),
      changedEnvironments: () => environments.tellChange(),
      changedServices: () => services.tellChange(),
      changedCapacity: () => capacity.tellChange(),
      isolation: () => told.isolation,
      stopping: () => stopper.state !== 'running',
    },
    (message) => link.send(message),
  );
  const link = new AgentLink({
    urls: shuffled(config.linkUrls),
    timings: LINK_TIMINGS,
    patienceMs: () => lease.patienceMs,
    createHello: (challenge, dial) =>
      createHello(challenge, dial, config, identity, table, {
        hardware: hardware.tell(),
        isolation: told.isolation,
        launcherAgeMs: told.launcherStartMs === undefined ? undefined : bootNowMs() - told.launcherStartMs,
        environments: environments.tell(),
        capacity: capacity.tell(),
        services: services.tell(),
        metricsAddress: advertisedAddress(server.address, config.metricsAdvertise, hostname()),
      }),
    events: {
      onDial: () => watchdog.dialled(),
      onHello: () => {
        told.helloMs = bootNowMs();
      },
      onUp: (welcome) => linkUp(welcome),
      onDown: () => {
        lease.linkDown();
        watchdog.linkDown();
        heartbeat.stop();
        table.linkDown();
        resolutions.linkDown();
        stopper.notice();
      },
      onMessage: (message) => dispatch(message),
      onCongestion: (congested) => launcher.setPaused(congested),
      onGiveUp: (reason) => void giveUp(reason),
    },
    logger,
  });
  const resolutions = new Resolutions({ environments, send: (message) => link.send(message), logger });
  const metrics = new AgentMetrics(
    {
      activeExecutions: () => table.active,
      slots: () => config.slots,
      activeContainers: () => docker.containers(),
      draining: () => told.draining || stopper.state !== 'running',
      hardware: () => hardware.current,
      load: () => told.load,
      launcher: {
        up: () => launcher.state === 'ready',
        outdated: () => renewal.outdated,
        pid: () => told.launcherPid,
        losses: () => told.launcherLosses,
        load: () => told.launcherLoad,
      },
      spoolBytes,
      link: { linked: () => link.linked, counts: () => link.counts, leaseLeftMs: () => lease.leftMs },
      environments: packages,
    },
    config.metricsLabels,
  );
  const serviceMetrics = new ServiceMetrics(metrics.registry, config.services.environment, () => services.running());
  const stopper = new Stopper({
    config,
    table,
    launcher,
    isQuiet: () => (link.linked ? table.size === table.activeJobs : table.active === 0),
    announce: () => heartbeat.beat(),
    logger,
  });

  function linkUp(welcome: Welcome): void {
    if (welcome.agentId !== '') identity.keepAgentId(welcome.agentId);
    setDraining(welcome.draining);
    // Before whatever starts or goes on under it.
    const leaseMs = Math.floor(durationMs(welcome.lease));
    lease.linkUp(told.helloMs, leaseMs);
    watchdog.linkUp(identity.agentId, leaseMs);
    table.linkUp(welcome);
    heartbeat.start(durationMs(welcome.heartbeatInterval) || HEARTBEAT_MS);
  }

  function dispatch({ message }: ServerMessage): void {
    switch (message.case) {
      case 'assignment':
        table.assign(message.value);
        return;
      case 'cancel':
        table.cancel(message.value);
        return;
      case 'logStored':
        table.logStored(message.value);
        return;
      case 'resultStored':
        table.resultStored(message.value.ref);
        return;
      case 'drop':
        table.drop(message.value.ref, message.value.reason);
        return;
      case 'lockDecided':
        table.lockDecided(message.value);
        return;
      case 'resolve':
        void resolutions.answer(message.value);
        return;
      case 'clearGpu':
        void clearGpu(message.value);
        return;
      case 'drain':
        setDraining(message.value.draining);
        return;
      case 'leaseRenewed':
        lease.renewed(message.value.heartbeat);
        watchdog.acknowledged();
        return;
      default:
        // A newer control plane may know more than this agent.
        logger.debug({ message: message.case }, 'message ignored');
    }
  }

  async function clearGpu({ id, gpuUuid }: ClearGpu): Promise<void> {
    const gpu = await gpus.keeper.clear(gpuUuid);
    const value = { id, ...(gpu === undefined ? {} : { gpu }) };
    link.send(create(AgentMessageSchema, { message: { case: 'gpuCleared', value } }));
  }

  function setDraining(draining: boolean): void {
    if (draining !== told.draining) logger.info(draining ? 'drain requested' : 'drain ended');
    told.draining = draining;
    if (stopper.state === 'running') table.setClosed(draining ? 'the agent is draining' : undefined);
  }

  function health(): Health {
    const problems = [
      ...(link.linked ? [] : ['no link to the control plane']),
      ...(launcher.state === 'ready' ? [] : ['the launcher does not answer']),
      ...(stopper.state === 'running' ? [] : ['the agent is stopping']),
    ];
    return { problems, details: { agentId: identity.agentId, active: table.active, draining: told.draining } };
  }

  async function giveUp(reason: string): Promise<void> {
    logger.fatal({ reason }, 'giving up');
    await stopper.abandon();
    await finish(reason);
  }

  async function finish(reason: string | undefined): Promise<void> {
    watchdog.close();
    heartbeat.stop();
    lease.linkDown();
    table.giveBackPreparations();
    await link.close();
    await cleanup.disposeAsync();
    ended.resolve(reason);
  }

  const server = await serveMetrics(config.metricsListen, metrics.registry, health, config.metricsToken);
  cleanup.defer(() => server.close());
  logger.info({ metrics: server.address }, 'metrics and health are served');
  cleanup.defer(() => launcher.close());
  cleanup.defer(() => packages.dropSpare());
  cleanup.defer(() => hardware.stop());
  cleanup.defer(() => docker.close());
  cleanup.defer(() => services.close());
  slurm?.open();
  await Promise.all([launcher.open(), docker.open()]);
  await services.open();
  const looks = Promise.all([nodejs.look(), gpus.devices.look(), hardware.start(HARDWARE_DEADLINE_MS)]);
  // What a former agent has left running does so on a lease that nobody renews until there is a link: what the host has is
  // told with a heartbeat then.
  if (table.size === 0) await looks;
  else looks.catch((error: unknown) => logger.error({ err: error }, 'the host could not be looked at'));
  if (told.isolation.level === Level.NONE) {
    if (!config.allowUnsandboxed) {
      const message = `the launcher on ${config.launcherSocketPath} runs code without a sandbox; stop it, or allow it with --allow-unsandboxed`;
      throw new HarrierError('failed_precondition', message);
    }
    logger.warn('code runs without a sandbox, as the user of this agent');
  }
  link.open();
  watchdog.start();

  return {
    ended: ended.promise,
    stop: () => {
      watchdog.stopping();
      if (stopper.state === 'running') void stopper.stop().then(() => finish(undefined));
      else stopper.hurry();
    },
  };
}

function isolationOf(level: 'sandbox' | 'none', cgroupLimits: readonly string[]): Isolation {
  return create(IsolationSchema, {
    level: level === 'sandbox' ? Level.SANDBOX : Level.NONE,
    cgroupLimits: [...cgroupLimits],
  });
}

/** In any order, so that the agents of a cluster spread over its control planes. */
function shuffled<T>([first, ...rest]: readonly [T, ...T[]]): [T, ...T[]] {
  const result: [T, ...T[]] = [first, ...rest];
  for (let end = result.length - 1; end > 0; end--) {
    const at = Math.floor(Math.random() * (end + 1));
    [result[at], result[end]] = [result[end] as T, result[at] as T];
  }
  return result;
}

/** Where the agent's package index and its files are. */
function indexHosts({ indexUrl, environments }: AgentConfig): readonly string[] {
  const policy = { indexUrl, allowed: [], allowExtra: false, fileHosts: environments.indexHosts };
  return chooseIndexes(policy, indexUrl, []).hosts;
}
