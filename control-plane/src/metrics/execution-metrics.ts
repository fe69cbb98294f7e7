import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import type { MetricsRegistry } from '@harrier/shared/metrics/exposition';
import { Counter, Histogram } from 'prom-client';
import { enumName } from './enum-name.ts';
import { exemplarOf } from './exemplar.ts';

/** From a call of a warm interpreter to a day, in seconds. */
const DURATION_BUCKETS = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400,
];

/** Labels that may have any number of values: an operator turns them on, and pays for the series. */
export const EXTRA_LABELS = ['tenant', 'module'] as const;
export type ExtraLabel = (typeof EXTRA_LABELS)[number];
type Label = 'task_class' | ExtraLabel;

/** An execution that is over. */
export interface EndedExecution {
  taskClass: string;
  /** Id of the tenant. */
  tenant: string;
  /** Name; empty for code, commands and images. */
  module: string;
  state: State;
  /** Undefined when it succeeded. */
  errorCode: number | undefined;
  /** From acceptance to the end. */
  seconds: number;
  /** Its place in a trace; empty: none. */
  traceParent: string;
}

/** Executions that ended, told by the replica that stored their result. */
export class ExecutionMetrics {
  readonly #ended: Counter<Label | 'state'>;
  readonly #errors: Counter<Label | 'code'>;
  readonly #duration: Histogram<Label>;
  readonly #retries: Counter<'task_class' | 'code'>;
  readonly #extra: readonly ExtraLabel[];

  constructor(register: MetricsRegistry, extra: readonly ExtraLabel[]) {
    const registers = [register];
    this.#extra = extra;
    this.#ended = new Counter({
      name: 'harrier_executions_total',
      help: 'Executions that reached a final state.',
      labelNames: ['task_class', 'state', ...extra],
      registers,
    });
    this.#errors = new Counter({
      name: 'harrier_execution_errors_total',
      help: 'Executions that ended without success, by error code.',
      labelNames: ['task_class', 'code', ...extra],
      registers,
    });
    this.#duration = new Histogram({
      name: 'harrier_execution_duration_seconds',
      help: 'Time from the acceptance of an execution to its final state, with waiting and retries.',
      labelNames: ['task_class', ...extra],
      buckets: DURATION_BUCKETS,
      enableExemplars: true,
      registers,
    });
    this.#retries = new Counter({
      name: 'harrier_execution_retries_total',
      help: 'Attempts that ended and are followed by another one, by the error code of the one that ended.',
      labelNames: ['task_class', 'code'],
      registers,
    });
  }

  observeEnd(ended: EndedExecution): void {
    const { taskClass, state, errorCode, seconds, traceParent } = ended;
    const labels: Partial<Record<Label, string>> = { task_class: taskClass };
    for (const name of this.#extra) labels[name] = ended[name];
    this.#ended.inc({ ...labels, state: enumName(State, state) });
    if (errorCode !== undefined) this.#errors.inc({ ...labels, code: enumName(Code, errorCode) });
    this.#duration.observe({ labels, value: seconds, exemplarLabels: exemplarOf(traceParent) });
  }

  observeRetry(taskClass: string, code: Code): void {
    this.#retries.inc({ task_class: taskClass, code: enumName(Code, code) });
  }
}
