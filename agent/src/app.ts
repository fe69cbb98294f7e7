import { create, equals } from '@bufbuild/protobuf';
import { HarrierError, type Logger, lockDirectory } from '@harrier/shared';
import { type Isolation, IsolationSchema, Isolation_Level as Level } from '@harrier/shared/gen/agent';
import type { ServerMessage, Welcome } from '@harrier/shared/gen/link';
import { type AgentConfig, ConfigError } from './config.ts';
import { createDockerParts } from './docker-parts.ts';
import { buildBounds } from './environment/build-runs.ts';
import { EnvironmentRegistry } from './environment/environment-registry.ts';
import { chooseIndexes } from './environment/index-policy.ts';
import { InlineEnvironment } from './environment/inline-environment.ts';
import { NodejsEnvironment } from './environment/nodejs-environment.ts';
import { createPackageProviders } from './environment/package-providers.ts';
import { launcherGuard } from './executor/container-guard.ts';
import type { Executor } from './executor/executor.ts';
import { launcherEvents } from './executor/launcher-events.ts';
import { ProcessExecutor } from './executor/process-executor.ts';
import { durationMs } from './executor/start-message.ts';
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
import { resolvePython } from './launcher/python.ts';
import { buildOf, startLauncher } from './launcher/start-launcher.ts';
import { bootNowMs } from './lease/boot-clock.ts';
import { Lease } from './lease/lease.ts';
import { AgentLink } from './link/agent-link.ts';
import { LINK_TIMINGS } from './link/link-timings.ts';
import { AgentMetrics } from './metrics/agent-metrics.ts';
import { type Health, serveMetrics } from './metrics/metrics-server.ts';
import { Stopper } from './stopper.ts';

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
    spoolBytes: 0,
    draining: false,
    /** When the hello of the newest link was sent. */
    helloMs: 0,
  };
  const ended = Promise.withResolvers<string | undefined>();

  const environments = new EnvironmentRegistry(() => heartbeat.beat());
  environments.add(new InlineEnvironment());
  const table = new AttemptTable({
    environments,
    slots: config.slots,
    caps: { memoryBytes: config.maxMemoryBytes, tmpBytes: config.maxTmpBytes, network: config.maxNetwork },
    send: (message) => link.send(message),
    onFinished: (finished) => metrics.observeFinished(finished),
    onEnvironmentPrepared: (prepared) => metrics.observePrepared(prepared),
    onQuiet: () => stopper.notice(),
    onForgotten: () => renewal.notice(),
    logger,
  });
  const runs = new PrivateRuns(() => launcher);
  const bounds = buildBounds(config.maxMemoryBytes);
  const python = await resolvePython(config.python ?? 'python3');
  const launcherOptions = {
    python: python.path,
    jobPython: config.python === undefined ? undefined : python.path,
    dataDir: config.dataDir,
    socketPath: config.launcherSocketPath,
    allowUnsandboxed: config.allowUnsandboxed,
    spoolBytes: config.spoolBytes,
    zygoteMemoryBytes: bounds.memoryBytes,
  };
  const launcher = new Launcher({
    socketPath: config.launcherSocketPath,
    start: () => startLauncher(launcherOptions),
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
          told.spoolBytes = load.spool_bytes;
        },
        onLauncher: (pid) => {
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
  const processes: Executor = new ProcessExecutor(launcher, indexHosts(config));
  table.addExecutor(processes);
  const renewal = new LauncherRenewal({
    launcher,
    build: buildOf(launcherOptions),
    // Containers of single calls are the engine's.
    isIdle: () => table.size === table.sizeOf(docker.executor) && runs.active === 0 && stopper.state === 'running',
    logger,
  });
  const docker = createDockerParts({
    settings: config.docker,
    dataDir: config.dataDir,
    memoryBytes: config.maxMemoryBytes,
    tmpBytes: config.maxTmpBytes,
    host: launcher,
    guard: launcherGuard(launcher, config.docker.socketPath),
    events: table,
    onSupportChange: () => environments.supportChanged(),
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
  const packages = await createPackageProviders({
    settings: config.environments,
    indexUrl: config.indexUrl,
    dataDir: config.dataDir,
    searchPath: config.searchPath,
    runs,
    bounds,
    retire: (tenant, startKey) => launcher.retire(tenant, startKey),
    python: () => told.python,
    unavailable: needsSandbox,
    logger,
  });
  cleanup.defer(() => packages.close());
  for (const provider of packages.providers) environments.add(provider);

  const hardware = new HardwareMonitor({
    probes: createProbes(config.searchPath),
    onChange: () => heartbeat.beat(),
    logger,
  });
  const readLoad = createHostLoadReader();
  const lease = new Lease({ onChange: () => launcher.tellLease(), onStale: (reason) => link.leave(reason) });
  const leaseWatch = new LeaseWatch({
    isEnforced: () => launcher.enforcesLease,
    lease,
    nowMs: bootNowMs,
    table,
    logger,
  });
  cleanup.defer(() => leaseWatch.stop());
  const heartbeat = new Heartbeat(
    {
      number: () => lease.beat(),
      load: () => readLoad(told.spoolBytes),
      activeExecutions: () => table.active,
      changedHardware: () => hardware.tellChange(),
      changedEnvironments: () => environments.tellChange(),
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
      createHello(challenge, dial, config, identity, table, hardware.tell(), told.isolation, environments.tell()),
    events: {
      onHello: () => {
        told.helloMs = bootNowMs();
      },
      onUp: (welcome) => linkUp(welcome),
      onDown: () => {
        lease.linkDown();
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
  const metrics = new AgentMetrics({
    activeExecutions: () => table.active,
    activeContainers: () => docker.containers(),
    linked: () => link.linked,
    spoolBytes: () => told.spoolBytes,
    launcherOutdated: () => renewal.outdated,
    hardware: () => hardware.current,
  });
  const stopper = new Stopper({
    config,
    table,
    launcher,
    isQuiet: () => (link.linked ? table.size === 0 : table.active === 0),
    announce: () => heartbeat.beat(),
    logger,
  });

  function linkUp(welcome: Welcome): void {
    if (welcome.agentId !== '') identity.keepAgentId(welcome.agentId);
    setDraining(welcome.draining);
    // Before whatever starts or goes on under it.
    lease.linkUp(told.helloMs, Math.floor(durationMs(welcome.lease)));
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
      case 'drain':
        setDraining(message.value.draining);
        return;
      case 'leaseRenewed':
        lease.renewed(message.value.heartbeat);
        return;
      default:
        // A newer control plane may know more than this agent.
        logger.debug({ message: message.case }, 'message ignored');
    }
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
    heartbeat.stop();
    lease.linkDown();
    table.close();
    await link.close();
    await cleanup.disposeAsync();
    ended.resolve(reason);
  }

  const server = await serveMetrics(config.metricsListen, metrics.registry, health);
  cleanup.defer(() => server.close());
  logger.info({ metrics: server.address }, 'metrics and health are served');
  cleanup.defer(() => launcher.close());
  cleanup.defer(() => hardware.stop());
  cleanup.defer(() => docker.close());
  await Promise.all([launcher.open(), docker.open()]);
  const looks = Promise.all([nodejs.look(), hardware.start(HARDWARE_DEADLINE_MS)]);
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

  return {
    ended: ended.promise,
    stop: () => {
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
