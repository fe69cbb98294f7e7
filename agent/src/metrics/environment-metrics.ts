import { collectedCounter, collectedGauge } from '@harrier/shared/metrics/collected';
import type { MetricsRegistry } from '@harrier/shared/metrics/exposition';
import { Histogram } from 'prom-client';

/** From a venv of one wheel to a conda environment with CUDA. */
const BUILD_BUCKETS = [0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800];

export interface EnvironmentSources {
  /** Environments that are kept, their bytes, what they may take, and how many made room for others. */
  store: () => { environments: number; bytes: number; maxBytes: number; evictions: number };
  /** Steps of builds that run, and that wait for their turn. */
  builds: () => { running: number; waiting: number };
  /** Told of the end of each build from now on. */
  onBuilt: (listener: (result: 'built' | 'failed', seconds: number) => void) => void;
}

/** Environments that are built on this host: venv and conda. */
export function addEnvironmentMetrics(register: MetricsRegistry, { store, builds, onBuilt }: EnvironmentSources): void {
  const gauge = (name: string, help: string, read: () => number) => collectedGauge(register, { name, help, read });
  gauge('harrier_agent_environments', 'Environments that are kept.', () => store().environments);
  gauge('harrier_agent_environment_store_bytes', 'Bytes of all environments that are kept.', () => store().bytes);
  gauge(
    'harrier_agent_environment_store_limit_bytes',
    'Bytes that all environments may take; beyond that the one unused for longest goes.',
    () => store().maxBytes,
  );
  gauge('harrier_agent_builds_running', 'Steps of builds that run now.', () => builds().running);
  gauge('harrier_agent_builds_waiting', 'Steps of builds that wait for their turn.', () => builds().waiting);
  collectedCounter(register, {
    name: 'harrier_agent_environment_evictions_total',
    help: 'Environments that were removed to make room for others.',
    read: () => store().evictions,
  });
  const duration = new Histogram({
    name: 'harrier_agent_environment_build_duration_seconds',
    help: 'Duration of builds of environments, by result: built, or failed.',
    labelNames: ['result'],
    buckets: BUILD_BUCKETS,
    registers: [register],
  });
  onBuilt((result, seconds) => duration.observe({ result }, seconds));
}
