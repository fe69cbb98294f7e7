import type { Logger } from '@harrier/shared';
import { GroupCommit } from './db/group-commit.ts';
import { findExecutionByKey, readOutput } from './db/queries/read-executions.ts';
import { type NewStep, storeSteps } from './db/queries/workflow-steps.ts';
import type { Sql } from './db/sql.ts';
import type { Metrics } from './metrics/metrics.ts';
import type { BusMessage } from './replica/bus-message.ts';
import type { BusTarget } from './replica/replica-bus.ts';
import { ScheduleRunner } from './schedule/schedule-runner.ts';
import type { ExecutionService } from './service/execution-service.ts';
import { violationsOf } from './service/json-schema.ts';
import { ScheduleService } from './service/schedule-service.ts';
import { scheduleTargets } from './service/schedule-targets.ts';
import { untilDatabaseAnswers } from './service/while-away.ts';
import { workflowExecutions } from './service/workflow-executions.ts';
import { WorkflowService } from './service/workflow-service.ts';
import { WorkflowWatcher } from './service/workflow-watcher.ts';
import { MAX_STEP_CHARS } from './workflow/run-limits.ts';
import { charsOfStep } from './workflow/stored-step.ts';
import { WorkflowRunner } from './workflow/workflow-runner.ts';

export interface WorkflowPartsOptions {
  /** For what callers wait for. */
  hot: Sql;
  cold: Sql;
  replicaId: string;
  executions: ExecutionService;
  /** Schedules of a tenant at most; 0: no bound. */
  maxSchedules: number;
  metrics: Pick<Metrics, 'workflows' | 'schedules'>;
  /** To other replicas. */
  tell: (to: BusTarget, message: BusMessage) => void;
  logger: Logger;
}

/** What starts executions by itself: workflows and schedules. */
export interface WorkflowParts {
  workflows: WorkflowService;
  workflowRunner: WorkflowRunner;
  workflowWatcher: WorkflowWatcher;
  schedules: ScheduleService;
  scheduleRunner: ScheduleRunner;
}

export function createWorkflowParts(options: WorkflowPartsOptions): WorkflowParts {
  const { hot, cold, replicaId, executions, metrics, tell, logger } = options;
  const workflowRunner: WorkflowRunner = new WorkflowRunner({
    sql: cold,
    replicaId,
    steps: new GroupCommit({
      write: (steps: NewStep[]) => storeSteps(hot, steps),
      concurrency: 2,
      maxItems: 100,
      size: { of: charsOfStep, max: MAX_STEP_CHARS },
    }),
    executions: workflowExecutions(executions, (tenant, key) => findExecutionByKey(cold, tenant, key)),
    readOutput: (tenant, id) => readOutput(cold, tenant, id),
    workflowsOf: (tenant, ids) => workflows.workflowsOf(tenant, ids),
    checkInput: ({ inputSchema, digest }, input, bytes) =>
      inputSchema === undefined ? undefined : violationsOf(inputSchema, `${digest} input`, input, bytes),
    whileAway: untilDatabaseAnswers,
    onChanged: (runId) => workflowWatcher.changed(runId),
    onEnded: (instance) => metrics.workflows.observeEnd(instance),
    logger,
  });
  const workflows: WorkflowService = new WorkflowService({
    sql: cold,
    replicaId,
    runner: workflowRunner,
    tell: (replica, id) => tell(replica, { type: 'workflowWord', id }),
  });
  const workflowWatcher = new WorkflowWatcher(cold, workflows);
  const scheduleRunner = new ScheduleRunner({
    sql: cold,
    targets: scheduleTargets(cold, executions, workflows),
    onFiring: (outcome, lateMs) => metrics.schedules.observe(outcome, lateMs / 1000),
    logger,
  });
  const schedules = new ScheduleService({
    sql: cold,
    executions,
    workflows,
    maxOfTenant: options.maxSchedules || Number.POSITIVE_INFINITY,
    onChanged: () => {
      scheduleRunner.wake();
      tell('all', { type: 'schedulesChanged' });
    },
  });
  return { workflows, workflowRunner, workflowWatcher, schedules, scheduleRunner };
}
