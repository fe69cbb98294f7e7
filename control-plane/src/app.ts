import { randomUUID } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { HarrierError, type HostPort, type Logger, lockDirectory, messageOf, openTracing } from '@harrier/shared';
import { BUILT_IN_CLASSES, loadTaskClasses } from '@harrier/shared/task-classes-file';
import { Admission } from './admission/admission.ts';
import { WatcherBound } from './admission/watcher-bound.ts';
import { AgentQuestions, isAnswer } from './agent-link/agent-questions.ts';
import { AgentRegistry } from './agent-link/agent-registry.ts';
import { createLinkServer, type LinkServer } from './agent-link/link-server.ts';
import { LinkTraffic } from './agent-link/link-traffic.ts';
import { readReservation } from './agent-link/reservation.ts';
import { createAgentApi } from './api/agent-api.ts';
import { createApiHandler } from './api/api-handler.ts';
import { createExecutionApi } from './api/execution-api.ts';
import { createInstallHandler } from './api/install/install-handler.ts';
import { createModuleApi } from './api/module-api.ts';
import { createScheduleApi } from './api/schedule-api.ts';
import { createWorkflowApi } from './api/workflow-api.ts';
import { ensureAdminKey } from './auth/admin-key.ts';
import { Authenticator } from './auth/authenticator.ts';
import type { Config } from './config.ts';
import { BatchObserver } from './db/batch-observer.ts';
import { type Database, openDatabase } from './db/database.ts';
import { GatherTime } from './db/gather-time.ts';
import { GroupCommit } from './db/group-commit.ts';
import { countOfflineAgents, listMetricsTargets } from './db/queries/agents.ts';
import { ensureTenant } from './db/queries/api-keys.ts';
import type { WaitingExecution } from './db/queries/claim-executions.ts';
import { type FinishedExecution, finishExecutions } from './db/queries/finish-executions.ts';
import { insertExecutions, type NewExecution } from './db/queries/insert-executions.ts';
import { type NewLogChunk, storeLogChunks } from './db/queries/log-chunks.ts';
import { queueDepths } from './db/queries/queue-state.ts';
import { uuidv7 } from './db/uuid.ts';
import { EventFile } from './events/event-file.ts';
import { ExecutionObserver } from './execution-observer.ts';
import { openListeners } from './listeners.ts';
import { createMetrics } from './metrics/metrics.ts';
import { discoveryOf } from './metrics/targets.ts';
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
import { queueObstacles } from './service/queue-obstacles.ts';
import { RemoteWatchers } from './service/remote-watchers.ts';
import { ReplicaMessages } from './service/replica-messages.ts';
import type { TaskClasses } from './service/task-class.ts';
import { Waiting } from './service/waiting.ts';
import type { Explain } from './service/waiting-reason.ts';
import { createWorkflowParts, type WorkflowParts } from './workflow-parts.ts';

const DEFAULT_TENANT = 'default';
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
  metricsAddress: HostPort;
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
  const { taskClassesFile } = config;
  const classes = taskClassesFile === undefined ? BUILT_IN_CLASSES : await loadTaskClasses(taskClassesFile);
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
    return await startOn(database, classes, { config, logger, onFatal }, () => lock.release());
  } catch (error) {
    await database.close();
    lock.release();
    throw error;
  }
}

async function startOn(
  database: Database,
  classes: TaskClasses,
  { config, logger }: AppOptions,
  unlock: () => void,
): Promise<App> {
  const { hot, cold, control } = database;
  const tracing = await openTracing(config.tracing, 'harrier-control-plane', logger);
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
  const traffic = new LinkTraffic();
  const batches = new BatchObserver();
  const metrics = createMetrics(
    {
      queue: {
        depths: () => queueDepths(cold),
        obstacles: () =>
          queueObstacles(cold, async (waiting) => {
            const requirement = await requirementOf(waiting);
            const elsewhere = await agentsElsewhere.candidates(requirement.tenantId);
            return scheduler.constraints(requirement, waiting.id, elsewhere);
          }),
      },
      agents: {
        linked: () => registry.candidates(),
        offline: () => countOfflineAgents(cold),
        held: () => leaseSweep.held.size,
        link: traffic,
      },
      database: {
        observe: (onEnd) => {
          for (const { pool, observer } of database.pools) {
            observer.onEnd((seconds, failed) => onEnd(pool, seconds, failed));
          }
        },
        pools: () =>
          database.pools.map(({ pool, connections, observer }) => ({ pool, connections, active: observer.active })),
        observeBatches: (onWritten) => batches.onWritten(onWritten),
        waiting: () => [
          { batch: 'executions', items: inserts.waiting },
          { batch: 'results', items: finishes.waiting },
          { batch: 'logs', items: logs.waiting },
        ],
      },
      events: { file: () => eventFile?.state, bus: () => bus.counts, replicas: () => registration.replicas },
      workflowRuns: () => workflowRunner.active,
    },
    config.metricsLabels,
  );
  const gatherTime = new GatherTime();
  const observer = new ExecutionObserver({ metrics, tracing, gatherTime });
  const pythonSource = new PythonSource();
  const modules = new ModuleService(cold, pythonSource, classes, (tenant, name, versionId) =>
    tell('all', { type: 'modulesChanged', tenantId: tenant, name, versionId }),
  );
  const remoteWatchers = new RemoteWatchers({ get: (id) => tracker.get(id), send: tell });
  const finishes = new GroupCommit({
    write: batches.observed('results', (rows: FinishedExecution[]) => finishExecutions(hot, rows)),
    concurrency: 1,
    maxItems: 200,
    gatherMs: () => gatherTime.ms,
  });
  const logs = new GroupCommit({
    write: batches.observed<NewLogChunk, void>('logs', async (chunks) => {
      await storeLogChunks(hot, chunks);
      return [];
    }),
    concurrency: 2,
    maxItems: 32,
  });
  const tracker: ExecutionTracker = new ExecutionTracker({
    sql: cold,
    replicaId,
    registry,
    logger,
    finishes,
    logs,
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
    onRetry: ({ resolved }, code) => metrics.executions.observeRetry(resolved.taskClass, code),
    onFinished: (tracked) => {
      observer.ended(tracked);
      scheduleRunner.ended(tracked.resolved.request.idempotencyKey);
      scheduler.ended(tracked.resolved.requirement);
    },
  });
  const requirementOf = async (waiting: WaitingExecution) => {
    const { requirement } =
      tracker.get(waiting.id)?.resolved ?? (await executions.resolveRow({ ...waiting, input_json: '{}' }));
    return requirement;
  };
  const scheduler: Scheduler = new Scheduler({
    sql: cold,
    registry,
    index,
    logger,
    requirementOf,
    onLooked: (placed, seconds) => metrics.queue.observePlacement(placed ? 'placed' : 'no_agent', seconds),
    quotaOf: (tenant) => admission.quotaOf(tenant),
    defaultQuota: config.admission.maxActive,
    tenantWeight: (tenant) => admission.weightOf(tenant),
    classWeight: (taskClass) => classes.get(taskClass)?.weight ?? 1,
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
      observer.claimed(claimed, resolved.request.traceParent);
      tracker.assign(tracked, {
        agentId: claimed.agentId,
        reservation: readReservation(claimed.reservation),
        attempt: claimed.attempt,
        assignTime: claimed.assign_time,
        failures: claimed.failures,
      });
    },
  });
  const bound = new WatcherBound({
    maxPerTenant: config.maxWatchers,
    onRefused: (reason) => metrics.queue.observeRefused(reason),
  });
  const waiting = new Waiting({
    sql: cold,
    scheduler,
    quotaOf: (tenant) => admission.quotaOf(tenant),
    elsewhere: (tenant) => agentsElsewhere.candidates(tenant),
  });
  const explain: Explain = (requirement, id) => waiting.reason(requirement, id);
  const braked = new BrakedAgents({ sql: cold, registry });
  const inserts = new GroupCommit({
    write: batches.observed('executions', (rows: NewExecution[]) => insertExecutions(hot, rows)),
    concurrency: 1,
    maxItems: 200,
    gatherMs: () => gatherTime.ms,
  });
  const admission: Admission = new Admission({
    sql: cold,
    settings: config.admission,
    unstored: () => inserts.waiting,
    onRefused: (reason) => metrics.queue.observeRefused(reason),
    logger,
  });
  const executions = new ExecutionService({
    sql: cold,
    admission,
    inserts,
    modules,
    classes,
    registry,
    scheduler,
    tracker,
    elsewhere,
    replicaId,
    explain,
    waiting,
    braked,
    isClaimedElsewhere: (id) => messages.isClaimedElsewhere(id),
    cancelElsewhere: (id, outcome) =>
      tell('all', outcome === 'ended' ? { type: 'moved', ids: [id] } : { type: 'cancel', id }),
  });
  const leaseSweep = new LeaseSweep({
    sql: control,
    leaseMs: config.leaseMs,
    brakeMs: config.brakeMs,
    graceMs: registration.alone ? config.leaseMs : 0,
    logger,
    endAttempts: (agentId, reason, leftMs) => tracker.agentLost(agentId, reason, leftMs),
    onReplicaGone: () => workflowRunner.look(),
  });
  const movedExecutions = new MovedExecutions({ sql: cold, replicaId, registry, tracker, logger });
  const questions = new AgentQuestions(registry);
  const questionsElsewhere = new QuestionsElsewhere({
    sql: cold,
    replicaId,
    questions,
    send: tell,
    alone: () => registration.alone,
    logger,
  });
  const agents = new AgentService({
    sql: cold,
    replicaId,
    registry,
    tellOthers: (id) => tell('all', { type: 'agentChanged', id }),
    capacityChanged: () => scheduler.wake(),
    agentLost: (agentId, reason) => tracker.agentLost(agentId, reason),
    here: questions,
    there: questionsElsewhere,
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
    traffic,
    events: {
      onRecorded: (id, session) => {
        links.closeOlder(id, session);
        tell('all', { type: 'agentLinked', id, session });
      },
      onLinked: async (agent, hello, sameProcess) => {
        await admission.prepare(agent.tenantId);
        return await tracker.reconcile(agent, hello, sameProcess);
      },
      onUnlinked: (agent) => questions.unlinked(agent.id),
      onMessage: (agent, message) => {
        if (isAnswer(message)) questions.answered(agent.id, message);
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
    schedulesChanged: () => scheduleRunner.wake(),
    workflowWord: (runId) => void workflowRunner.hear(runId).catch(() => undefined),
    newestSession: (agentId) => links.newestSession(agentId),
    lookAtReplicas: () => registration.look(),
  });
  const parts: WorkflowParts = createWorkflowParts({
    ...{ hot, cold, replicaId, executions, metrics, tell, logger },
    maxSchedules: config.maxSchedules,
  });
  const { workflows, workflowRunner, workflowWatcher, schedules, scheduleRunner } = parts;
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
          bound,
          waitingReason: (tenant, row) => executions.waitingReason(tenant, row),
        }),
      ),
      module: createModuleApi(modules, validation),
      workflow: createWorkflowApi(workflows, workflowWatcher),
      schedule: createScheduleApi(schedules),
      agent: createAgentApi(agents),
    },
    authenticate: async (header) => {
      stopping.signal.throwIfAborted();
      return await authenticator.authenticate(header);
    },
    observe: metrics.observeRpc,
    tracing,
    install: createInstallHandler({ ...config.install, logger }),
    ready: async () => {
      await database.ping();
      return !stopping.signal.aborted;
    },
    logger,
    shutdownSignal: shutdown.signal,
    limits: { maxBodiesBytes: config.maxBodiesBytes },
  });
  leaseSweep.start();
  workflowRunner.start();
  scheduleRunner.start();
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

  const listeners = await openListeners({
    ...{ config, handler, metrics, logger },
    upgrade: links.handleUpgrade,
    targets: async () => discoveryOf(await listMetricsTargets(cold)),
  });
  const { address, grpcAddress, metricsAddress } = listeners;
  logger.info({ address, grpcAddress, metrics: metricsAddress }, 'control plane is ready');
  return {
    address,
    grpcAddress,
    metricsAddress,
    stop: async () => {
      const reason = new HarrierError('unavailable', 'the control plane stops; try again');
      stopping.abort(reason);
      await scheduleRunner.stop();
      await workflowRunner.stop();
      await scheduler.stop();
      const noticeMs = registration.alone ? 0 : Math.min(NOTICE_MS, config.stopGraceMs);
      const noticed = new Promise((resolve) => setTimeout(resolve, noticeMs));
      await Promise.all([executions.answered(Math.min(ANSWER_MS, config.stopGraceMs)), noticed]);
      shutdown.abort(reason);
      links.close();
      await listeners.close(config.stopGraceMs);
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
      await listeners.closeMetrics();
      await tracing.stop();
      await database.close();
      unlock();
    },
  };
}
