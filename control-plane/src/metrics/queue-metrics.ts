import { WaitingConstraint_Kind as Kind } from '@harrier/shared/gen/execution';
import { collectedGauge } from '@harrier/shared/metrics/collected';
import type { MetricsRegistry } from '@harrier/shared/metrics/exposition';
import { Counter, Histogram } from 'prom-client';
import { enumName } from './enum-name.ts';

const WAIT_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600];
/** The choice of an agent from memory: from a microsecond. */
const PLACEMENT_BUCKETS = [1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 0.001, 0.0025, 0.01, 0.1];

export interface QueueSources {
  /** What waits for an agent, over all replicas; `oldestSeconds` since the oldest of them was due. */
  depths: () => Promise<{ taskClass: string; depth: number; oldestSeconds: number }[]>;
  /** What keeps them from agents. */
  obstacles: () => Promise<{ taskClass: string; kind: Kind; executions: number }[]>;
}

/** What came of a look for an agent. */
export type PlacementOutcome = 'placed' | 'no_agent';

/** The queue, and how it is emptied. */
export class QueueMetrics {
  readonly #wait: Histogram;
  readonly #refused: Counter<'reason'>;
  readonly #placement: Histogram<'outcome'>;

  constructor(register: MetricsRegistry, sources: QueueSources) {
    const registers = [register];
    /** The two gauges of one page say the same. */
    let page: { depths: ReturnType<QueueSources['depths']>; atMs: number } | undefined;
    const depths = () => {
      const nowMs = performance.now();
      if (page === undefined || nowMs - page.atMs > SAME_PAGE_MS) page = { depths: sources.depths(), atMs: nowMs };
      return page.depths;
    };
    collectedGauge(register, {
      name: 'harrier_queue_depth',
      help: 'Executions that wait for an agent, over all replicas.',
      labelNames: ['task_class'],
      read: async () =>
        (await depths()).map(({ taskClass, depth }) => ({ labels: { task_class: taskClass }, value: depth })),
    });
    collectedGauge(register, {
      name: 'harrier_queue_oldest_age_seconds',
      help: 'Time since the oldest of the executions that wait for an agent was due, over all replicas.',
      labelNames: ['task_class'],
      read: async () =>
        (await depths()).map(({ taskClass, oldestSeconds }) => ({
          labels: { task_class: taskClass },
          value: oldestSeconds,
        })),
    });
    collectedGauge(register, {
      name: 'harrier_queue_blocked',
      help: 'Executions that are due and wait, by what keeps them from the agents that come closest, as far as this replica can tell.',
      labelNames: ['task_class', 'constraint'],
      read: async () =>
        (await sources.obstacles()).map(({ taskClass, kind, executions }) => ({
          labels: { task_class: taskClass, constraint: enumName(Kind, kind) },
          value: executions,
        })),
    });
    this.#wait = new Histogram({
      name: 'harrier_queue_wait_seconds',
      help: 'Time from acceptance, or from the time that a retry was due, to assignment.',
      buckets: WAIT_BUCKETS,
      registers,
    });
    this.#refused = new Counter({
      name: 'harrier_executions_refused_total',
      help: 'Executions that were not accepted, by what there was too much of: queue, rate, store; and readers: watchers.',
      labelNames: ['reason'],
      registers,
    });
    this.#placement = new Histogram({
      name: 'harrier_placement_duration_seconds',
      help: 'Duration of choices of an agent, by outcome: placed, or no_agent when none can take the execution now.',
      labelNames: ['outcome'],
      buckets: PLACEMENT_BUCKETS,
      registers,
    });
  }

  observeWait(seconds: number): void {
    this.#wait.observe(seconds);
  }

  observeRefused(reason: string): void {
    this.#refused.inc({ reason });
  }

  observePlacement(outcome: PlacementOutcome, seconds: number): void {
    this.#placement.observe({ outcome }, seconds);
  }
}

const SAME_PAGE_MS = 100;
