import { parseTraceParent } from '@harrier/shared';
import type { MetricsRegistry } from '@harrier/shared/metrics/exposition';
import { Counter, Histogram } from 'prom-client';
import type { EnvironmentPrepared, FinishedAttempt, RejectedAttempt } from '../job/attempt-reports.ts';

/** From a call of a warm interpreter to a day of training, in seconds. */
const DURATION_BUCKETS = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400,
];

/** Labels that may have any number of values: an operator turns them on, and pays for the series. */
export const EXTRA_LABELS = ['tenant'] as const;
export type ExtraLabel = (typeof EXTRA_LABELS)[number];
type Label = 'task_class' | 'environment' | ExtraLabel;

/** Attempts that this agent has or had. */
export class AttemptMetrics {
  readonly #extra: readonly ExtraLabel[];
  readonly #executions: Counter<Label | 'outcome'>;
  readonly #duration: Histogram<Label>;
  readonly #prepare: Histogram<'environment' | 'cache'>;
  readonly #rejected: Counter<'code'>;

  constructor(register: MetricsRegistry, extra: readonly ExtraLabel[]) {
    const registers = [register];
    this.#extra = extra;
    this.#executions = new Counter({
      name: 'harrier_agent_executions_total',
      help: 'Attempts that ended on this agent.',
      labelNames: ['task_class', 'environment', 'outcome', ...extra],
      registers,
    });
    this.#duration = new Histogram({
      name: 'harrier_agent_execution_duration_seconds',
      help: 'Time from the start of the code to its end.',
      labelNames: ['task_class', 'environment', ...extra],
      buckets: DURATION_BUCKETS,
      enableExemplars: true,
      registers,
    });
    this.#prepare = new Histogram({
      name: 'harrier_agent_environment_prepare_seconds',
      help: 'Time from an assignment to its environment being there; cache "hit" when it was there before.',
      labelNames: ['environment', 'cache'],
      buckets: DURATION_BUCKETS,
      registers,
    });
    this.#rejected = new Counter({
      name: 'harrier_agent_rejections_total',
      help: 'Assignments that this agent did not take, by error code.',
      labelNames: ['code'],
      registers,
    });
  }

  observeFinished({ taskClass, environment, tenant, outcome, runMs, traceParent }: FinishedAttempt): void {
    const labels: Partial<Record<Label, string>> = { task_class: taskClass, environment };
    if (this.#extra.includes('tenant')) labels.tenant = tenant;
    this.#executions.inc({ ...labels, outcome });
    const place = parseTraceParent(traceParent);
    const exemplarLabels: Record<string, string> = place?.sampled ? { trace_id: place.traceId } : {};
    this.#duration.observe({ labels, value: runMs / 1000, exemplarLabels });
  }

  observePrepared({ environment, cache, prepareMs }: EnvironmentPrepared): void {
    this.#prepare.observe({ environment, cache }, prepareMs / 1000);
  }

  observeRejected({ code }: RejectedAttempt): void {
    this.#rejected.inc({ code });
  }
}
