import type { Hardware } from '@harrier/shared/gen/agent';
import { collectedGauge } from '@harrier/shared/metrics/collected';
import { createRegistry } from '@harrier/shared/metrics/exposition';
import { collectProcessMetrics } from '@harrier/shared/metrics/process-metrics';
import { AttemptMetrics, type ExtraLabel } from './attempt-metrics.ts';
import { addEnvironmentMetrics, type EnvironmentSources } from './environment-metrics.ts';
import { addGpuMetrics } from './gpu-metrics.ts';
import { addHostMetrics, type HostSources } from './host-metrics.ts';
import { addLauncherMetrics, type LauncherSources } from './launcher-metrics.ts';
import { addLinkMetrics, type LinkSources } from './link-metrics.ts';

/** What is read when Prometheus asks. */
export interface MetricSources {
  activeExecutions: () => number;
  slots: () => number;
  activeContainers: () => number;
  /** It takes no new work. */
  draining: () => boolean;
  hardware: () => Hardware;
  load: HostSources['load'];
  launcher: LauncherSources;
  /** Output and results that no control plane has acknowledged. */
  spoolBytes: () => number;
  link: LinkSources;
  environments: EnvironmentSources;
}

/** The agent's metrics; their names are a contract with dashboards and alerts. */
export class AgentMetrics {
  readonly registry = createRegistry();
  readonly attempts: AttemptMetrics;

  /** @param extraLabels labels beyond those that have few values */
  constructor(sources: MetricSources, extraLabels: readonly ExtraLabel[]) {
    const { registry } = this;
    this.attempts = new AttemptMetrics(registry, extraLabels);
    const gauge = (name: string, help: string, read: () => number) => collectedGauge(registry, { name, help, read });
    gauge('harrier_agent_active_executions', 'Attempts that occupy a slot now.', sources.activeExecutions);
    gauge('harrier_agent_slots', 'Attempts that run at once, at most.', sources.slots);
    gauge('harrier_agent_draining', 'Whether the agent takes no new work: it drains, or it stops.', () =>
      Number(sources.draining()),
    );
    gauge(
      'harrier_agent_active_containers',
      'Docker containers that run calls or are kept warm for them now.',
      sources.activeContainers,
    );
    gauge(
      'harrier_agent_spool_bytes',
      'Bytes of output and results that the control plane has not acknowledged; 0 when all is stored.',
      sources.spoolBytes,
    );
    addLinkMetrics(registry, sources.link);
    addLauncherMetrics(registry, sources.launcher);
    addEnvironmentMetrics(registry, sources.environments);
    addGpuMetrics(registry, sources.hardware);
    addHostMetrics(registry, { hardware: sources.hardware, load: sources.load });
    collectProcessMetrics(registry, 'harrier_agent_build_info');
  }
}
