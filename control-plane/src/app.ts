import { randomUUID } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { formatHostPort, HarrierError, type Logger, lockDirectory, messageOf } from '@harrier/shared';
import { Agent_State as AgentState } from '@harrier/shared/gen/agent';
import { Admission } from './admission/admission.ts';
import { AgentQuestions } from './agent-link/agent-questions.ts';
import { AgentRegistry } from './agent-link/agent-registry.ts';
import { createLinkServer, type LinkServer } from './agent-link/link-server.ts';
import { createAgentApi } from './api/agent-api.ts';
import { createApiHandler } from './api/api-handler.ts';
import { createExecutionApi } from './api/execution-api.ts';
import { createListener } from './api/listener/listener.ts';
import { createModuleApi } from './api/module-api.ts';
import { ensureAdminKey } from './auth/admin-key.ts';
import { Authenticator } from './auth/authenticator.ts';
import type { Config } from './config.ts';
import { type Database, openDatabase } from './db/database.ts';
import { GroupCommit } from './db/group-commit.ts';
import { ensureTenant } from './db/queries/api-keys.ts';
import { finishExecutions } from './db/queries/finish-executions.ts';
import { insertExecutions, type NewExecution } from './db/queries/insert-executions.ts';
import { type NewLogChunk, storeLogChunks } from './db/queries/log-chunks.ts';
import { queueDepths } from './db/queries/queue-state.ts';
import { uuidv7 } from './db/uuid.ts';
import { EventFile } from './events/event-file.ts';
import { createMetrics, serveMetrics } from './metrics.ts';
import type { BusMessage } from './replica/bus-message.ts';
import { type BusTarget, ReplicaBus } from './replica/replica-bus.ts';
import { ReplicaRegistration } from './replica/replica-registration.ts';
import { runAlone } from './replica/singleton.ts';
import { Retention } from './retention/retention.ts';
import { AgentIndex } from './scheduler/agent-index.ts';
import { QueueCompaction } from './scheduler/queue-compaction.ts';
import { Scheduler } from './scheduler/scheduler.ts';
import { AgentRequests } from './service/agent-requests.ts';
import { AgentService } from './service/agent-service.ts';
import { AgentsElsewhere } from './service/agents-elsewhere.ts';
import { BrakedAgents } from './service/braked-agents.ts';
import { ExecutionService } from './service/execution-service.ts';
import { ExecutionTracker } from './service/execution-tracker.ts';
import { ExecutionWatcher } from './service/execution-watcher.ts';
import { FollowedElsewhere } from './service/followed-elsewhere.ts';
import { LeaseSweep } from './service/lease-sweep.ts';
import { ModuleService } from './service/module-service.ts';
import { ModuleValidation } from './service/module-validation.ts';
import { followModulesFile } from './service/modules-file.ts';
import { MovedExecutions } from './service/moved-executions.ts';
import { PythonSource } from './service/python-source/python-source.ts';
import { QuestionsElsewhere } from './service/questions-elsewhere.ts';
import { RemoteWatchers } from './service/remote-watchers.ts';
import { ReplicaMessages } from './service/replica-messages.ts';
import type { TrackedExecution } from './service/tracked-execution.ts';
import type { Explain } from './service/waiting-reason.ts';

const DEFAULT_TENANT = 'default';
/** Under load, how long accepted executions and results wait for others to share their commit. */
const GATHER_MS = 3;
/** How often attempts that fell between two stools are looked for; nothing waits for it but them. */
const SWEEP_MS = 15_000;
/** How long callers who wait for an execution may go on to wait when the process stops, before they are told to try again. */
const ANSWER_MS = 5_000;
/**
 * Where there are other replicas: how long calls are answered with `unavailable`, and load balancers told to turn away, before
 * connections end. A call that crosses the end of its connection fails in other ways with some clients, that of Node.js among them.
 */
const NOTICE_MS = 1_000;

export interface App {
  /** Where it listens. */
  address: AddressInfo;
  grpcAddress: AddressInfo | undefined;
  metricsAddress: AddressInfo;
  /** Finishes what is in flight, tells the agents to come back, and closes the database. */
  stop(): Promise<void>;
}

export interface AppOptions {
  config: Config;
  logger: Logger;
  /** The process cannot go on. */
  onFatal: (reason: string) => void;
}

/** The composition root: builds every part, wires them, and starts listening. */
export async function startApp({ config, logger, onFatal }: AppOptions): Promise<App> {
  // The database's user must be able to pass through.
  const lock = lockDirectory(config.dataDirectory, { holder: 'control-plane', mode: 0o755 });
  const database = await openDatabase({
    url: config.databaseUrl,
    dataDirectory: config.dataDirectory,
    logger,
    onLost: onFatal,
  }).catch((error: unknown) => {
    lock.release();
    throw error;
  });
  try {
    return await startOn(database, { config, logger, onFatal }, () => lock.release());
  } catch (error) {
    await database.close();
    lock.release();
    throw error;
  }
}

async function startOn(database: Database, { config, logger }: AppOptions, unlock: () => void): Promise<App> {
  const { hot, cold, control } = database;
  const tenantId = await ensureTenant(cold, uuidv7(), DEFAULT_TENANT);
  await ensureAdminKey(cold, join(config.dataDirectory, 'admin.key'), tenantId);

  const registration = new ReplicaRegistration({
    sql: control,
    id: randomUUID(),
    name: `${hostname()}:${process.pid}`,
    leaseMs: config.leaseMs,
    logger,
    onRevived: () => links.sendAway('this control plane was taken for dead; link anew'),
  });
  await registration.start();
  const { id: replicaId } = registration;
  const tell = (to: BusTarget, message: BusMessage) => {
    if (to !== 'all' || !registration.alone) bus.send(to, message);
  };
  const bus: ReplicaBus = new ReplicaBus({
    connect: () => database.connect(),
    sql: control,
    replicaId,
    logger,
    onMessage: (message, from) => messages.handle(message, from),
    onGap: () => messages.missed(),
  });
  const elsewhere = new FollowedElsewhere({ sql: cold, logger, send: tell });
  const agentsElsewhere = new AgentsElsewhere({ sql: cold, replicaId, alone: () => registration.alone });
  const index = new AgentIndex();
  const registry = new AgentRegistry(index);
  const metrics = createMetrics({
    queueDepths: () => queueDepths(cold),
    agentStates: () => agentStates(registry),
    heldAgents: () => leaseSweep.held.size,
  });
  const pythonSource = new PythonSource();
  const modules = new ModuleService(cold, pythonSource, (tenant, name, versionId) =>
    tell('all', { type: 'modulesChanged', tenantId: tenant, name, versionId }),
  );
  const remoteWatchers = new RemoteWatchers({ get: (id) => tracker.get(id), send: tell });
  const tracker: ExecutionTracker = new ExecutionTracker({
    sql: cold,
    replicaId,
    registry,
    logger,
    finishes: new GroupCommit({
      write: (rows) => finishExecutions(hot, rows),
      concurrency: 1,
      maxItems: 200,
      gatherMs: GATHER_MS,
    }),
    logs: new GroupCommit<NewLogChunk, void>({
      write: async (chunks) => {
        await storeLogChunks(hot, chunks);
        return [];
      },
      concurrency: 2,
      maxItems: 32,
    }),
    resolveRow: (row) => executions.resolveRow(row),
    decideLock: async ({ tenantId, program }, lock, platform) =>
      program.kind === 'module' ? await modules.decideLock(tenantId, program.stored, lock, platform) : lock,
    release: (agentId, executionId) => scheduler.release(agentId, executionId),
    // Agents of other replicas may have room.
    whyNobody: (requirement) => (registration.alone ? scheduler.whyNobody(requirement) : undefined),
    queued: () => scheduler.queued(),
    onTracked: (tracked) => {
      remoteWatchers.tracked(tracked);
      elsewhere.moved([tracked.id]);
    },
    onTaken: (ids) => {
      for (const id of ids) tell('all', { type: 'moved', ids: [id] });
    },
    onFinished: (tracked) => observeEnd(tracked),
  });
  const scheduler = new Scheduler({
    sql: cold,
    registry,
    index,
    logger,
    requirementOf: async (waiting) => {
      const { requirement } =
        tracker.get(waiting.id)?.resolved ?? (await executions.resolveRow({ ...waiting, input_json: '{}' }));
      return requirement;
    },
    onLeft: () => tell('all', { type: 'queued' }),
    onClaimed: async (claimed) => {
      const { id, attempt, follower } = claimed;
      if (follower !== null && follower !== replicaId) {
        // Somebody may wait there, for less time than it would take to ask.
        remoteWatchers.watch(id, follower, false);
        tell(follower, { type: 'claimed', executions: [{ id, attempt }] });
      }
      const resolved = tracker.get(claimed.id)?.resolved ?? (await executions.resolveRow(claimed));
      const times = {
        createTime: claimed.create_time,
        queueTime: claimed.queue_time,
        assignTime: claimed.assign_time,
        startTime: undefined,
        endTime: undefined,
      };
      const tracked = tracker.get(claimed.id) ?? tracker.track(resolved, times, claimed.failures);
      tracker.assign(tracked, claimed.agentId, claimed.attempt, claimed.assign_time, claimed.failures);
    },
  });
  const explain: Explain = async (requirement) =>
    scheduler.explain(requirement, await agentsElsewhere.candidates(requirement.tenantId));
  const braked = new BrakedAgents({ sql: cold, registry });
  const inserts = new GroupCommit({
    write: (rows: NewExecution[]) => insertExecutions(hot, rows),
    concurrency: 1,
    maxItems: 200,
    gatherMs: GATHER_MS,
  });
  const admission = new Admission({
    sql: cold,
    settings: config.admission,
    unstored: () => inserts.waiting,
    onRefused: metrics.observeRefused,
    logger,
  });
  const executions = new ExecutionService({
    sql: cold,
    admission,
    inserts,
    modules,
    registry,
    scheduler,
    tracker,
    elsewhere,
    replicaId,
    explain,
    braked,
    isClaimedElsewhere: (id) => messages.isClaimedElsewhere(id),
    cancelElsewhere: (id, outcome) =>
      tell('all', outcome === 'ended' ? { type: 'moved', ids: [id] } : { type: 'cancel', id }),
  });
  const observeEnd = (tracked: TrackedExecution) => {
    metrics.observeFinished(tracked.resolved.taskClass, tracked.current.state);
    const { assignTime, queueTime } = tracked.times;
    if (assignTime !== undefined)
      metrics.observeQueueWait(Math.max(0, assignTime.getTime() - queueTime.getTime()) / 1000);
  };
  const leaseSweep = new LeaseSweep({
    sql: control,
    leaseMs: config.leaseMs,
    brakeMs: config.brakeMs,
    graceMs: registration.alone ? config.leaseMs : 0,
    logger,
    endAttempts: (agentId, reason, leftMs) => tracker.agentLost(agentId, reason, leftMs),
  });
  const movedExecutions = new MovedExecutions({ sql: cold, replicaId, registry, tracker, logger });
  const agents = new AgentService({
    sql: cold,
    replicaId,
    registry,
    tellOthers: (id) => tell('all', { type: 'agentChanged', id }),
    capacityChanged: () => scheduler.wake(),
    agentLost: (agentId, reason) => tracker.agentLost(agentId, reason),
  });
  const questions = new AgentQuestions(registry);
  const questionsElsewhere = new QuestionsElsewhere({
    sql: cold,
    replicaId,
    questions,
    send: tell,
    alone: () => registration.alone,
    logger,
  });
  const validation = new ModuleValidation({
    modules,
    registry,
    here: questions,
    there: questionsElsewhere,
    elsewhere: (tenant) => agentsElsewhere.candidates(tenant),
  });
  const links: LinkServer = createLinkServer({
    sql: cold,
    registry,
    logger,
    replicaId,
    leases: { leaseMs: config.leaseMs, valid: () => registration.valid },
    events: {
      onRecorded: (id, session) => {
        links.closeOlder(id, session);
        tell('all', { type: 'agentLinked', id, session });
      },
      onLinked: (agent, hello, sameProcess) => tracker.reconcile(agent, hello, sameProcess),
      onUnlinked: (agent) => questions.unlinked(agent.id),
      onMessage: (agent, message) => {
        if (message.case === 'resolved') questions.answered(agent.id, message.value);
        else tracker.handle(agent, message);
      },
      onCapacityChanged: () => scheduler.wake(),
    },
  });
  const closeOlder = (agentId: string, session: number) => links.closeOlder(agentId, session);
  const agentRequests = new AgentRequests({
    sql: cold,
    registry,
    tracker,
    logger,
    alone: () => registration.alone,
    closeOlder,
    capacityChanged: () => scheduler.wake(),
  });
  const messages: ReplicaMessages = new ReplicaMessages({
    registry,
    scheduler,
    tracker,
    movedExecutions,
    elsewhere,
    remoteWatchers,
    agentRequests,
    questions: questionsElsewhere,
    modules,
    closeOlder,
    newestSession: (agentId) => links.newestSession(agentId),
    lookAtReplicas: () => registration.look(),
  });
  await bus.start();
  tell('all', { type: 'here' });
  const authenticator = new Authenticator(cold);
  const stopping = new AbortController();
  const shutdown = new AbortController();
  const handler = createApiHandler({
    services: {
      execution: createExecutionApi(
        executions,
        new ExecutionWatcher({
          sql: cold,
          tracker,
          elsewhere,
          explain,
          braked,
          waitingReason: (tenant, row) => executions.waitingReason(tenant, row),
        }),
      ),
      module: createModuleApi(modules, validation),
      agent: createAgentApi(agents),
    },
    authenticate: async (header) => {
      stopping.signal.throwIfAborted();
      return await authenticator.authenticate(header);
    },
    observe: metrics.observeRpc,
    ready: async () => {
      await database.ping();
      return !stopping.signal.aborted;
    },
    logger,
    shutdownSignal: shutdown.signal,
    limits: { maxBodiesBytes: config.maxBodiesBytes },
  });
  leaseSweep.start();
  const retention = new Retention({
    sql: cold,
    settings: config.retention,
    runAlone: (key, job) => runAlone(cold, key, job),
    logger,
  });
  const queueCompaction = new QueueCompaction({
    sql: cold,
    runAlone: (key, job) => runAlone(cold, key, job),
    logger,
  });
  const eventFile =
    config.eventsFile === undefined
      ? undefined
      : await EventFile.open({
          sql: cold,
          path: config.eventsFile,
          reader: `file:${hostname()}:${config.eventsFile}`,
          logger,
        });
  const sweeper = setInterval(() => {
    tracker.sweepUnfollowed().catch((error: unknown) => logger.warn({ reason: messageOf(error) }, 'the sweep failed'));
  }, SWEEP_MS);
  sweeper.unref();
  const { modulesFile } = config;
  const followed =
    modulesFile === undefined ? undefined : await followModulesFile({ path: modulesFile, tenantId, modules, logger });

  const listener = createListener({ ...config.listen, tls: config.tls, handler, upgrade: links.handleUpgrade, logger });
  const grpcListener =
    config.grpcListen === undefined
      ? undefined
      : createListener({ ...config.grpcListen, tls: config.tls, handler, grpcOnly: true, logger });
  const address = await listener.listen();
  const grpcAddress = await grpcListener?.listen();
  const metricsServer = await serveMetrics(metrics, config.metricsListen).catch((cause: unknown) => {
    const message = `metrics cannot be served on ${formatHostPort(config.metricsListen)}: ${messageOf(cause)}`;
    throw new HarrierError('failed_precondition', message, { cause });
  });
  logger.info({ address, grpcAddress, metrics: metricsServer.address() }, 'control plane is ready');
  return {
    address,
    grpcAddress,
    metricsAddress: metricsServer.address() as AddressInfo,
    stop: async () => {
      const reason = new HarrierError('unavailable', 'the control plane stops; try again');
      stopping.abort(reason);
      await scheduler.stop();
      const noticeMs = registration.alone ? 0 : Math.min(NOTICE_MS, config.stopGraceMs);
      const noticed = new Promise((resolve) => setTimeout(resolve, noticeMs));
      await Promise.all([executions.answered(Math.min(ANSWER_MS, config.stopGraceMs)), noticed]);
      shutdown.abort(reason);
      links.close();
      await Promise.all([listener.close(config.stopGraceMs), grpcListener?.close(config.stopGraceMs)]);
      clearInterval(sweeper);
      await movedExecutions.stop();
      await agentRequests.stop();
      remoteWatchers.stop();
      questionsElsewhere.stop();
      await followed?.stop();
      await pythonSource.stop();
      tracker.stop();
      await retention.stop();
      await queueCompaction.stop();
      await eventFile?.stop();
      await leaseSweep.stop();
      await registration.stop();
      await bus.stop();
      await new Promise((resolve) => metricsServer.close(resolve));
      await database.close();
      unlock();
    },
  };
}

function agentStates(registry: AgentRegistry): Map<AgentState, number> {
  const states = new Map<AgentState, number>();
  for (const { draining } of registry.candidates()) {
    const state = draining ? AgentState.DRAINING : AgentState.ONLINE;
    states.set(state, (states.get(state) ?? 0) + 1);
  }
  return states;
}
