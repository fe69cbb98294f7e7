import { sql } from 'drizzle-orm';
import {
  bigint,
  boolean,
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

export const workflows = pgTable(
  'workflows',
  {
    id: uuid('id').primaryKey(),
    tenantId: hotTenantId(),
    name: text('name').notNull(),
    version: text('version').notNull(),
    tags: text('tags').array().notNull(),
    digest: text('digest').notNull(),
    /** harrier.v1.Workflow, encoded. */
    definition: bytea('definition').notNull(),
    /** The greatest semantic version of its name. */
    latest: boolean('latest').notNull(),
    createTime: time('create_time').notNull().defaultNow(),
    /** Deleted versions stay for the runs that were accepted with them. */
    deleteTime: time('delete_time'),
  },
  (table) => [
    uniqueIndex('workflows_by_version').on(table.tenantId, table.name, table.version).where(sql`delete_time IS NULL`),
    uniqueIndex('workflows_latest').on(table.tenantId, table.name).where(sql`delete_time IS NULL AND latest`),
  ],
);

export const workflowRuns = pgTable(
  'workflow_runs',
  {
    /** UUIDv7. */
    id: uuid('id').notNull(),
    tenantId: hotTenantId(),
    workflowId: uuid('workflow_id').notNull(),
    workflow: text('workflow').notNull(),
    version: text('version').notNull(),
    /** Workflows within it: their ids by name and version as they are written, fixed when it was accepted. */
    pinned: jsonb('pinned').$type<Record<string, string>>().notNull().default({}),
    /** WorkflowRun.State */
    state: smallint('state').notNull(),
    inputJson: text('input_json').notNull(),
    outputJson: text('output_json'),
    /** The run as an instance of the engine, see workflow/run-state.ts; null: not begun. */
    root: jsonb('root'),
    nextTurn: integer('next_turn').notNull().default(1),
    /** Counts its steps. */
    revision: integer('revision').notNull().default(0),
    /** Number of the last line of its log. */
    logSequence: bigint('log_sequence', { mode: 'number' }).notNull().default(0),
    labels: jsonb('labels').$type<Record<string, string>>(),
    idempotencyKey: text('idempotency_key'),
    /** The replica that advances it; null: it only waits, and none has it in memory. */
    replicaId: uuid('replica_id'),
    /** While no replica has it: when one is to take it; null: when somebody has a word for it. */
    wakeTime: time('wake_time'),
    createTime: time('create_time').notNull().defaultNow(),
    startTime: time('start_time'),
    endTime: time('end_time'),
    /** What of its tenant's space was counted for it. */
    storedBytes: bigint('stored_bytes', { mode: 'number' }).notNull().default(0),
  },
  (table) => [
    primaryKey({ columns: [table.tenantId, table.id] }),
    uniqueIndex('workflow_runs_idempotency')
      .on(table.tenantId, table.idempotencyKey)
      .where(sql`idempotency_key IS NOT NULL`),
    index('workflow_runs_of_replica').on(table.replicaId).where(sql`replica_id IS NOT NULL AND end_time IS NULL`),
    // For lists: runs that go on are few; those that have ended enter their index once, with their last state.
    index('workflow_runs_open').on(table.tenantId, table.id).where(sql`end_time IS NULL`),
    index('workflow_runs_ended').on(table.tenantId, table.state, table.id).where(sql`end_time IS NOT NULL`),
    index('workflow_runs_of_workflow').on(table.tenantId, table.workflow, table.id),
    index('workflow_runs_labels').using('gin', sql`${table.labels} jsonb_path_ops`).where(sql`labels IS NOT NULL`),
    index('workflow_runs_asleep').on(table.wakeTime).where(sql`replica_id IS NULL AND end_time IS NULL`),
  ],
);

/** Nodes that have been reached, and items of maps. */
export const workflowNodes = pgTable(
  'workflow_nodes',
  {
    tenantId: hotTenantId(),
    runId: uuid('run_id').notNull(),
    path: text('path').notNull(),
    /** The instance of the engine without what stands in the other columns. */
    instance: jsonb('instance').notNull(),
    /** What it was given, and what it has made, as JSON text; null: nothing, or the output of its execution. */
    inputJson: text('input_json'),
    outputJson: text('output_json'),
    /** Of its last try. */
    executionId: uuid('execution_id'),
    /** The step of the run that changed it last. */
    revision: integer('revision').notNull(),
  },
  (table) => [primaryKey({ columns: [table.runId, table.path] })],
);

export const workflowLog = pgTable(
  'workflow_log',
  {
    tenantId: hotTenantId(),
    runId: uuid('run_id').notNull(),
    sequence: bigint('sequence', { mode: 'number' }).notNull(),
    time: time('time').notNull(),
    /** WorkflowLogEntry.Level */
    level: smallint('level').notNull(),
    path: text('path').notNull(),
    message: text('message').notNull(),
  },
  (table) => [primaryKey({ columns: [table.runId, table.sequence] })],
);

/** What callers have said to runs, and was not taken into account yet. */
export const workflowInbox = pgTable(
  'workflow_inbox',
  {
    id: bigint('id', { mode: 'number' }).primaryKey().generatedAlwaysAsIdentity(),
    tenantId: hotTenantId(),
    runId: uuid('run_id').notNull(),
    /** An event of the engine. */
    event: jsonb('event').notNull(),
  },
  (table) => [index('workflow_inbox_of_run').on(table.runId)],
);

/** Runs that were deleted, whose nodes and log follow. */
export const workflowRemains = pgTable('workflow_remains', {
  runId: uuid('run_id').primaryKey(),
  tenantId: hotTenantId(),
});
