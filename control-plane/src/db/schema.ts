import { sql } from 'drizzle-orm';
import {
  bigint,
  boolean,
  customType,
  doublePrecision,
  index,
  integer,
  jsonb,
  pgTable,
  primaryKey,
  smallint,
  text,
  uniqueIndex,
  uuid,
} from 'drizzle-orm/pg-core';
import { bytea, hotTenantId, time } from './columns.ts';
import type { AgentCapacity } from './queries/agents.ts';
import type { ExecutionReservation } from './queries/read-executions.ts';

// Every table but `tenants` carries the tenant, and every query is scoped by it. Enum columns hold the numbers of the
// protobuf enums, which never change their meaning.

/** A transaction's id that never comes again; read and written as text. */
const xid8 = customType<{ data: string }>({ dataType: () => 'xid8' });
const tenantId = () =>
  uuid('tenant_id')
    .notNull()
    .references(() => tenants.id);

export const tenants = pgTable('tenants', {
  id: uuid('id').primaryKey(),
  name: text('name').notNull().unique(),
  createTime: time('create_time').notNull().defaultNow(),
  /** Null: the settings of the control plane. */
  executionRetentionDays: integer('execution_retention_days'),
  logRetentionDays: integer('log_retention_days'),
  maxStoredBytes: bigint('max_stored_bytes', { mode: 'number' }),
  maxQueued: integer('max_queued'),
  maxPerSecond: doublePrecision('max_per_second'),
  /** Executions that are assigned, prepared or running at once. */
  maxActive: integer('max_active'),
  /** Its share beside other tenants, where agents do not do for all of them. */
  weight: doublePrecision('weight').notNull().default(1),
  /** What its finished executions take, inputs, outputs and logs; counted a little later. */
  storedBytes: bigint('stored_bytes', { mode: 'number' }).notNull().default(0),
});

export const apiKeys = pgTable('api_keys', {
  id: uuid('id').primaryKey(),
  tenantId: tenantId(),
  name: text('name').notNull(),
  /** Access.Role */
  role: smallint('role').notNull(),
  /** SHA-256 of the whole key: keys are long and random, so no slow hash is needed. */
  secretHash: bytea('secret_hash').notNull().unique(),
  createTime: time('create_time').notNull().defaultNow(),
  expireTime: time('expire_time'),
});

export const joinTokens = pgTable('join_tokens', {
  id: uuid('id').primaryKey(),
  tenantId: tenantId(),
  secretHash: bytea('secret_hash').notNull().unique(),
  createTime: time('create_time').notNull().defaultNow(),
  expireTime: time('expire_time').notNull(),
  /** Set once: by the agent that joined with it. */
  agentId: uuid('agent_id'),
});

export const agents = pgTable(
  'agents',
  {
    id: uuid('id').primaryKey(),
    tenantId: tenantId(),
    name: text('name').notNull(),
    /** Raw Ed25519 public key. */
    publicKey: bytea('public_key').notNull().unique(),
    labels: jsonb('labels').$type<Record<string, string>>().notNull().default({}),
    version: text('version').notNull(),
    /** harrier.v1.Hardware, encoded. */
    hardware: bytea('hardware').notNull(),
    /** harrier.v1.ManagedServices, encoded: what it keeps up, as it has told last. */
    services: bytea('services').notNull().default(sql`''::bytea`),
    /** Isolation.Level */
    isolation: smallint('isolation').notNull(),
    slots: integer('slots').notNull(),
    /** What its executions can have altogether; null: it has told none. */
    capacity: jsonb('capacity').$type<AgentCapacity>(),
    /** Environments that it can prepare, and the others with the reason why not; as when it was last linked. */
    environments: text('environments').array().notNull().default([]),
    unavailableEnvironments: jsonb('unavailable_environments').$type<Record<string, string>>().notNull().default({}),
    /** Environments that it had, and when it said that it has them no more: they may come back. */
    lostEnvironments: jsonb('lost_environments').$type<Record<string, string>>().notNull().default({}),
    drainRequested: boolean('drain_requested').notNull().default(false),
    /** It said on its newest link that its process is stopping. */
    stopping: boolean('stopping').notNull().default(false),
    instanceId: text('instance_id').notNull().default(''),
    /** The process with whose attempts the database was compared the last time: what was given since was given to it. */
    comparedInstanceId: text('compared_instance_id').notNull().default(''),
    /** `HOST:PORT` of its metrics, for Prometheus; empty: not to be had from outside its host. */
    metricsAddress: text('metrics_address').notNull().default(''),
    /** Of its host, as when it was last linked. */
    bootId: text('boot_id').notNull().default(''),
    /** Number of its newest link among the tries of its process. */
    dial: bigint('dial', { mode: 'number' }).notNull().default(0),
    /** Counts its links: what comes over an older one is not listened to. */
    session: bigint('session', { mode: 'number' }).notNull().default(0),
    /** The replica that it is linked to; null: none. */
    replicaId: uuid('replica_id'),
    /** While it is linked to none: when the lease of its attempts ends. */
    leaseEndTime: time('lease_end_time'),
    /** While most agents are gone at once, and it with them: until when its work is kept for it, at most. */
    brakeEndTime: time('brake_end_time'),
    /** When it was taken for lost the last time. */
    lostTime: time('lost_time'),
    createTime: time('create_time').notNull().defaultNow(),
    linkTime: time('link_time'),
    /** Written when a link opens and closes, not on heartbeats. */
    lastSeenTime: time('last_seen_time'),
  },
  (table) => [
    index('agents_by_name').on(table.tenantId, table.name, table.id),
    index('agents_of_replica').on(table.replicaId),
    index('agents_braked').on(table.id).where(sql`brake_end_time IS NOT NULL`),
    index('agents_leaving').on(table.leaseEndTime).where(sql`lease_end_time IS NOT NULL`),
  ],
);

/** Control planes that share this database. A row is there while its process lives, and a while longer. */
export const replicas = pgTable('replicas', {
  /** New for every start. */
  id: uuid('id').primaryKey(),
  /** Host and process, for people. */
  name: text('name').notNull(),
  startTime: time('start_time').notNull().defaultNow(),
  /** Renewed every few seconds. One that stops renewing it renews no leases of agents. */
  beatTime: time('beat_time').notNull().defaultNow(),
});

/** Questions to agents that are linked to another replica than the one that asks; the asker deletes them. */
export const agentQuestions = pgTable('agent_questions', {
  id: uuid('id').primaryKey(),
  tenantId: tenantId(),
  agentId: uuid('agent_id').notNull(),
  /** Which is to answer. */
  replicaId: uuid('replica_id').notNull(),
  /** The replica that asks. */
  askerId: uuid('asker_id').notNull(),
  /** harrier.v1.ServerMessage, encoded. */
  question: bytea('question').notNull(),
  /** harrier.v1.AgentMessage, encoded. */
  answer: bytea('answer'),
  /** Why there will be no answer. */
  error: text('error'),
  expireTime: time('expire_time').notNull(),
});

export const modules = pgTable(
  'modules',
  {
    id: uuid('id').primaryKey(),
    tenantId: tenantId(),
    name: text('name').notNull(),
    version: text('version').notNull(),
    environment: text('environment').notNull(),
    tags: text('tags').array().notNull(),
    digest: text('digest').notNull(),
    /** Module.Source */
    source: smallint('source').notNull(),
    /** harrier.v1.Module, encoded. */
    definition: bytea('definition').notNull(),
    /** The greatest semantic version of its name. */
    latest: boolean('latest').notNull(),
    createTime: time('create_time').notNull().defaultNow(),
    /** Deleted versions stay for the executions that were accepted with them. */
    deleteTime: time('delete_time'),
  },
  (table) => [
    uniqueIndex('modules_by_version').on(table.tenantId, table.name, table.version).where(sql`delete_time IS NULL`),
    uniqueIndex('modules_latest').on(table.tenantId, table.name).where(sql`delete_time IS NULL AND latest`),
  ],
);

/** What every agent of a platform installs for a module version: the lock that was found first. */
export const moduleLocks = pgTable(
  'module_locks',
  {
    tenantId: tenantId(),
    moduleId: uuid('module_id')
      .notNull()
      .references(() => modules.id),
    /** See `LockFound`; empty: every platform. */
    platform: text('platform').notNull(),
    lock: text('lock').notNull(),
    createTime: time('create_time').notNull().defaultNow(),
  },
  (table) => [primaryKey({ columns: [table.moduleId, table.platform] })],
);

export const executions = pgTable(
  'executions',
  {
    id: uuid('id').notNull(),
    tenantId: hotTenantId(),
    /** Execution.State */
    state: smallint('state').notNull(),
    /** Number of the current or last attempt: the fencing token. */
    attempt: integer('attempt').notNull().default(0),
    /** Attempts that failed, which the retry policy counts; attempts that were only put back do not. */
    failures: integer('failures').notNull().default(0),
    agentId: uuid('agent_id'),
    moduleId: uuid('module_id'),
    module: text('module'),
    version: text('version'),
    taskClass: text('task_class').notNull(),
    labels: jsonb('labels').$type<Record<string, string>>(),
    priority: integer('priority').notNull(),
    /** harrier.v1.CreateExecutionRequest without its input, encoded. */
    request: bytea('request').notNull(),
    inputJson: text('input_json').notNull(),
    /** The caller gave `input_json` and is answered with `output_json`. */
    jsonText: boolean('json_text').notNull(),
    idempotencyKey: text('idempotency_key'),
    outputJson: text('output_json'),
    /** ExecutionError.Code */
    errorCode: smallint('error_code'),
    errorMessage: text('error_message'),
    /** JSON text. */
    errorDetails: text('error_details'),
    exitCode: integer('exit_code'),
    stdoutTail: text('stdout_tail'),
    stderrTail: text('stderr_tail'),
    stdoutBytes: bigint('stdout_bytes', { mode: 'number' }),
    stderrBytes: bigint('stderr_bytes', { mode: 'number' }),
    stdoutTruncated: boolean('stdout_truncated'),
    stderrTruncated: boolean('stderr_truncated'),
    cpuMs: doublePrecision('cpu_ms'),
    maxRssBytes: bigint('max_rss_bytes', { mode: 'number' }),
    createTime: time('create_time').notNull().defaultNow(),
    /** When it last began to wait: accepted, or a retry became due. */
    queueTime: time('queue_time').notNull().defaultNow(),
    assignTime: time('assign_time'),
    startTime: time('start_time'),
    endTime: time('end_time'),
    prepareMs: doublePrecision('prepare_ms'),
    runMs: doublePrecision('run_ms'),
    /** Set when a caller asked to cancel what already runs; becomes the error's message. */
    cancelReason: text('cancel_reason'),
    /** Its start was recorded, and told as an event, before its end was. */
    startRecorded: boolean('start_recorded'),
    /** Its log was deleted before it was. */
    logDeleteTime: time('log_delete_time'),
    /** What its current or last attempt takes of the agent; null: one slot and nothing else. */
    reservation: jsonb('reservation').$type<ExecutionReservation>(),
    /** Executions with the same one share a limit; null: it has none. */
    concurrencyKey: text('concurrency_key'),
  },
  (table) => [
    // Ids are UUIDv7, so the key is also the order of creation.
    primaryKey({ columns: [table.tenantId, table.id] }),
    uniqueIndex('executions_idempotency')
      .on(table.tenantId, table.idempotencyKey)
      .where(sql`idempotency_key IS NOT NULL`),
    index('executions_active').on(table.agentId).where(sql`agent_id IS NOT NULL AND end_time IS NULL`),
    index('executions_limited')
      .on(table.tenantId, table.concurrencyKey)
      .where(sql`concurrency_key IS NOT NULL AND agent_id IS NOT NULL AND end_time IS NULL`),
  ],
);

/** What waits for an agent. Small: rows leave when they are assigned, so that finished executions never slow the claim. */
export const executionQueue = pgTable(
  'execution_queue',
  {
    executionId: uuid('execution_id').primaryKey(),
    tenantId: hotTenantId(),
    taskClass: text('task_class').notNull(),
    priority: integer('priority').notNull(),
    notBefore: time('not_before').notNull().defaultNow(),
    /** The replica that follows it for a caller; it is told when another one has claimed it. */
    replicaId: uuid('replica_id'),
    /** The same for entries that ask the same of agents: when one of them cannot be placed, no other can. */
    shape: text('shape').notNull().default(''),
  },
  (table) => [
    index('execution_queue_lanes').on(
      table.tenantId,
      table.taskClass,
      table.shape,
      table.priority.desc().nullsFirst(),
      table.executionId,
    ),
    index('execution_queue_due').on(table.notBefore),
  ],
);

/** Attempts that ended and were followed by another one; the current or last one stands in `executions`. */
export const attempts = pgTable(
  'attempts',
  {
    tenantId: hotTenantId(),
    executionId: uuid('execution_id').notNull(),
    attempt: integer('attempt').notNull(),
    agentId: uuid('agent_id'),
    state: smallint('state').notNull(),
    errorCode: smallint('error_code'),
    errorMessage: text('error_message'),
    errorDetails: text('error_details'),
    exitCode: integer('exit_code'),
    stdoutBytes: bigint('stdout_bytes', { mode: 'number' }),
    stderrBytes: bigint('stderr_bytes', { mode: 'number' }),
    assignTime: time('assign_time'),
    startTime: time('start_time'),
    endTime: time('end_time').notNull().defaultNow(),
  },
  (table) => [primaryKey({ columns: [table.tenantId, table.executionId, table.attempt] })],
);

/** Log bytes as they came; the key makes a chunk that is sent twice harmless. */
export const logChunks = pgTable(
  'log_chunks',
  {
    tenantId: hotTenantId(),
    executionId: uuid('execution_id').notNull(),
    attempt: integer('attempt').notNull(),
    /** LogChunk.Stream */
    stream: smallint('stream').notNull(),
    byteOffset: bigint('byte_offset', { mode: 'number' }).notNull(),
    data: bytea('data').notNull(),
  },
  (table) => [primaryKey({ columns: [table.executionId, table.attempt, table.stream, table.byteOffset] })],
);

/**
 * What happened, each row in the transaction that made it happen. Readers go on behind a position and see only rows whose
 * transaction id is below that of every running transaction: rows of transactions that commit later stand behind them.
 */
export const events = pgTable(
  'events',
  {
    xid: xid8('xid').notNull().default(sql`pg_current_xact_id()`),
    id: bigint('id', { mode: 'number' }).notNull().generatedAlwaysAsIdentity(),
    tenantId: hotTenantId(),
    time: time('time').notNull().defaultNow(),
    /** `execution.finished`, `agent.lost`, …; the list stands in queries/events.ts. */
    type: text('type').notNull(),
    executionId: uuid('execution_id'),
    attempt: integer('attempt'),
    agentId: uuid('agent_id'),
    /** Execution.State after it. */
    state: smallint('state'),
    /** ExecutionError.Code */
    errorCode: smallint('error_code'),
    /** Facts of events that are not of executions. */
    data: jsonb('data').$type<Record<string, unknown>>(),
  },
  (table) => [primaryKey({ columns: [table.xid, table.id] })],
);

/** How far each reader of the events has come: what it has not read is kept for it. */
export const eventReaders = pgTable('event_readers', {
  name: text('name').primaryKey(),
  xid: xid8('xid').notNull(),
  id: bigint('id', { mode: 'number' }).notNull(),
  updateTime: time('update_time').notNull().defaultNow(),
});
