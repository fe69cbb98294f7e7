import type { Tracing } from '@harrier/shared';
import type { GatherTime } from './db/gather-time.ts';
import type { ClaimedExecution } from './db/queries/claim-executions.ts';
import type { EndedExecution } from './metrics/execution-metrics.ts';
import type { Metrics } from './metrics/metrics.ts';
import { moduleOf } from './service/resolved-execution.ts';
import type { TrackedExecution } from './service/tracked-execution.ts';

export interface ExecutionObserverOptions {
  metrics: Pick<Metrics, 'executions' | 'queue'>;
  tracing: Tracing;
  /** Follows how long executions spend on their way. */
  gatherTime: GatherTime;
}

/** Tells of executions: to Prometheus, as steps of traces, and to those that adapt to their times. */
export class ExecutionObserver {
  readonly #options: ExecutionObserverOptions;

  constructor(options: ExecutionObserverOptions) {
    this.#options = options;
  }

  /** It was given to an agent: the time that it has waited becomes a step of its trace. */
  claimed(claimed: ClaimedExecution, traceParent: string): void {
    const { tracing } = this.#options;
    if (!tracing.enabled) return;
    const attributes = {
      ...{ 'harrier.execution.id': claimed.id, 'harrier.attempt': claimed.attempt },
      'harrier.agent.id': claimed.agentId,
    };
    const span = tracing.start('queue', { parent: traceParent, attributes, startTime: claimed.queue_time });
    span.end({ endTime: claimed.assign_time });
  }

  /** Its result is stored. */
  ended(tracked: TrackedExecution): void {
    const { metrics, gatherTime } = this.#options;
    metrics.executions.observeEnd(endOf(tracked));
    const { assignTime, queueTime, endTime } = tracked.times;
    if (assignTime === undefined) return;
    metrics.queue.observeWait(secondsBetween(queueTime, assignTime));
    const { prepare_ms: prepareMs, run_ms: runMs } = tracked.result ?? {};
    if (endTime === undefined || runMs == null) return;
    gatherTime.note(Math.max(0, endTime.getTime() - assignTime.getTime() - runMs - (prepareMs ?? 0)));
  }
}

function endOf({ resolved, current, result, times }: TrackedExecution): EndedExecution {
  return {
    taskClass: resolved.taskClass,
    tenant: resolved.tenantId,
    module: moduleOf(resolved.program)?.name ?? '',
    state: current.state,
    errorCode: result?.error_code ?? undefined,
    seconds: secondsBetween(times.createTime, times.endTime ?? new Date()),
    traceParent: resolved.request.traceParent,
  };
}

function secondsBetween(from: Date, to: Date): number {
  return Math.max(0, to.getTime() - from.getTime()) / 1000;
}
