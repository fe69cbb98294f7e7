import type { Hardware } from '@harrier/shared/gen/agent';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { EnvironmentPrepared, FinishedAttempt } from '../job/attempt-table.ts';
import { collectProcessMetrics } from './process-metrics.ts';

/** From a call of a warm interpreter to a day of training, in seconds. */
const DURATION_BUCKETS = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400,
];

/** What is read when Prometheus asks. */
export interface MetricSources {
  activeExecutions: () => number;
  activeContainers: () => number;
  linked: () => boolean;
  spoolBytes: () => number;
  /** The launcher is of another build than the agent. */
  launcherOutdated: () => boolean;
  hardware: () => Hardware;
}

/** The agent's metrics; their names are a contract with dashboards and alerts. */
export class AgentMetrics {
  readonly registry = new Registry();
  readonly #executions: Counter<'task_class' | 'environment' | 'outcome'>;
  readonly #duration: Histogram<'task_class' | 'environment'>;
  readonly #prepare: Histogram<'environment' | 'cache'>;

  constructor(sources: MetricSources) {
    const registers = [this.registry];
    collectProcessMetrics(this.registry);
    this.#executions = new Counter({
      name: 'harrier_agent_executions_total',
      help: 'Attempts that ended on this agent.',
      labelNames: ['task_class', 'environment', 'outcome'],
      registers,
    });
    this.#duration = new Histogram({
      name: 'harrier_agent_execution_duration_seconds',
      help: 'Time from the start of the code to its end.',
      labelNames: ['task_class', 'environment'],
      buckets: DURATION_BUCKETS,
      registers,
    });
    this.#prepare = new Histogram({
      name: 'harrier_agent_environment_prepare_seconds',
      help: 'Time from an assignment to its environment being there; cache "hit" when it was there before.',
      labelNames: ['environment', 'cache'],
      buckets: DURATION_BUCKETS,
      registers,
    });
    gauge('harrier_agent_active_executions', 'Attempts that occupy a slot now.', sources.activeExecutions);
    gauge(
      'harrier_agent_active_containers',
      'Docker containers that run calls or are kept warm for them now.',
      sources.activeContainers,
    );
    gauge(
      'harrier_agent_launcher_outdated',
      'Whether the launcher is of another build than the agent, and is replaced when it has nothing to do.',
      () => Number(sources.launcherOutdated()),
    );
    gauge('harrier_agent_link_connected', 'Whether the link to the control plane is up.', () =>
      Number(sources.linked()),
    );
    gauge(
      'harrier_agent_spool_bytes',
      'Bytes of output and results that the control plane has not acknowledged; 0 when all is stored.',
      sources.spoolBytes,
    );
    gpuGauge(
      'harrier_agent_gpu_utilization_ratio',
      'Share of time in which a GPU was busy.',
      (gpu) => gpu.utilizationRatio,
    );
    gpuGauge('harrier_agent_gpu_memory_used_bytes', 'Memory of a GPU in use.', (gpu) => Number(gpu.memoryUsedBytes));

    function gauge(name: string, help: string, read: () => number): void {
      new Gauge({
        name,
        help,
        registers,
        collect() {
          this.set(read());
        },
      });
    }

    function gpuGauge(name: string, help: string, read: (gpu: Hardware['gpus'][number]) => number): void {
      new Gauge({
        name,
        help,
        labelNames: ['gpu'],
        registers,
        collect() {
          this.reset();
          // Only cards whose driver tells figures have a UUID.
          for (const gpu of sources.hardware().gpus) if (gpu.uuid !== '') this.set({ gpu: gpu.uuid }, read(gpu));
        },
      });
    }
  }

  observeFinished({ taskClass, environment, outcome, runMs }: FinishedAttempt): void {
    this.#executions.inc({ task_class: taskClass, environment, outcome });
    this.#duration.observe({ task_class: taskClass, environment }, runMs / 1000);
  }

  observePrepared({ environment, cache, prepareMs }: EnvironmentPrepared): void {
    this.#prepare.observe({ environment, cache }, prepareMs / 1000);
  }
}
