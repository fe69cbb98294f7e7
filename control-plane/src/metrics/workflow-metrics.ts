import { collectedGauge } from '@harrier/shared/metrics/collected';
import type { MetricsRegistry } from '@harrier/shared/metrics/exposition';
import { Counter, Histogram } from 'prom-client';

/** From a decision to a day of waiting for somebody's word, in seconds. */
const NODE_BUCKETS = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400,
];

/** Runs of workflows and their nodes, told by the replica that stored their end. */
export class WorkflowMetrics {
  readonly #runs: Counter<'state'>;
  readonly #nodes: Histogram<'kind'>;

  /** @param active runs that this replica has in memory now */
  constructor(register: MetricsRegistry, active: () => number) {
    const registers = [register];
    this.#runs = new Counter({
      name: 'harrier_workflow_runs_total',
      help: 'Runs of workflows that ended; one that is started again ends again.',
      labelNames: ['state'],
      registers,
    });
    this.#nodes = new Histogram({
      name: 'harrier_workflow_node_seconds',
      help: 'Time from the start of the first try of a node to its end, with waiting.',
      labelNames: ['kind'],
      buckets: NODE_BUCKETS,
      registers,
    });
    collectedGauge(register, {
      name: 'harrier_workflow_runs_active',
      help: 'Runs of workflows that this replica advances; those that only wait for longer are not among them.',
      read: active,
    });
  }

  /** @param ended a node or an item; with an empty path a run. `seconds` from the start of its first try, with waiting */
  observeEnd(ended: { path: string; kind: string; state: string; seconds: number }): void {
    const { path, kind, state, seconds } = ended;
    if (path === '') this.#runs.inc({ state: state.toLowerCase() });
    else this.#nodes.observe({ kind }, seconds);
  }
}
