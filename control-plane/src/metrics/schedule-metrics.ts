import type { MetricsRegistry } from '@harrier/shared/metrics/exposition';
import { Counter, Histogram } from 'prom-client';

const LATENESS_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600];

/** What became of the times of schedules. */
export class ScheduleMetrics {
  readonly #firings: Counter<'outcome'>;
  readonly #lateness: Histogram;

  constructor(register: MetricsRegistry) {
    const registers = [register];
    this.#firings = new Counter({
      name: 'harrier_schedule_firings_total',
      help: 'Times of schedules, by outcome: started, skipped by a policy, or failed, when what they start was refused for good.',
      labelNames: ['outcome'],
      registers,
    });
    this.#lateness = new Histogram({
      name: 'harrier_schedule_lateness_seconds',
      help: 'Time from when a time of a schedule was due until what it starts was accepted.',
      buckets: LATENESS_BUCKETS,
      registers,
    });
  }

  /** @param lateSeconds of those that were started */
  observe(outcome: 'started' | 'skipped' | 'failed', lateSeconds: number): void {
    this.#firings.inc({ outcome });
    if (outcome === 'started') this.#lateness.observe(Math.max(0, lateSeconds));
  }
}
