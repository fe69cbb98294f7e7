import { HarrierError } from '@harrier/shared';
import { findStarted } from '../db/queries/schedule-firings.ts';
import type { Sql } from '../db/sql.ts';
import type { Targets } from '../schedule/schedule-runner.ts';
import type { ExecutionService } from './execution-service.ts';
import { isFinalRefusal } from './final-refusal.ts';
import type { WorkflowService } from './workflow-service.ts';

/** Where the code of a scheduled execution finds the time that it is for. */
const TIME_VARIABLE = 'HARRIER_SCHEDULE_TIME';
/** By which what a schedule has started is found. */
const LABEL = 'schedule';

/** What schedules start: executions and runs, as everybody's. */
export function scheduleTargets(
  sql: Sql,
  executions: Pick<ExecutionService, 'accept' | 'cancel'>,
  workflows: Pick<WorkflowService, 'run' | 'cancel'>,
): Targets {
  return {
    isFinalRefusal,
    start: async ({ tenantId, name, time, key, target }) => {
      // By a try that nobody heard the end of. Now it could be refused, or the schedule could start something else.
      const before = await findStarted(sql, tenantId, key);
      if (before !== undefined) return before;
      switch (target.case) {
        case 'run': {
          const { labels, env } = target.value;
          const request = {
            ...target.value,
            idempotencyKey: key,
            labels: { ...labels, [LABEL]: name },
            env: { ...env, [TIME_VARIABLE]: time.toISOString() },
          };
          const { id } = await executions.accept(tenantId, request, '');
          return { executionId: id, runId: undefined };
        }
        case 'workflow': {
          const labels = { ...target.value.labels, [LABEL]: name };
          const { id } = await workflows.run(tenantId, { ...target.value, idempotencyKey: key, labels });
          return { executionId: undefined, runId: id };
        }
        case undefined:
          throw new HarrierError('invalid_argument', `the schedule ${name} has no target`);
      }
    },
    cancel: async (tenantId, { executionId, runId }, reason) => {
      try {
        if (executionId !== undefined) await executions.cancel(tenantId, executionId, reason);
        if (runId !== undefined) await workflows.cancel(tenantId, runId, reason);
      } catch (error) {
        // It has ended, or is kept no more.
        if (!isFinalRefusal(error)) throw error;
      }
    },
  };
}
