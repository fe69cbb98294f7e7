import { create } from '@bufbuild/protobuf';
import { HardwareSchema } from '@harrier/shared/gen/agent';
import { expect, test } from 'vitest';
import { AgentMetrics } from './agent-metrics.ts';

const HARDWARE = create(HardwareSchema, {
  gpus: [{ uuid: 'GPU-a', utilizationRatio: 0.5, memoryUsedBytes: 1024n }, { model: 'without a UUID' }],
});

async function linesOf(metrics: AgentMetrics): Promise<string[]> {
  return (await metrics.registry.metrics()).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
}

test('the metrics of the contract are served', async () => {
  const metrics = new AgentMetrics({
    activeExecutions: () => 3,
    activeContainers: () => 2,
    linked: () => true,
    spoolBytes: () => 99,
    launcherOutdated: () => true,
    hardware: () => HARDWARE,
  });
  metrics.observeFinished({ taskClass: 'cpu_short', environment: 'inline', outcome: 'timed_out', runMs: 30 });
  metrics.observePrepared({ environment: 'venv', cache: 'miss', prepareMs: 1500 });
  const lines = await linesOf(metrics);
  for (const line of [
    'harrier_agent_executions_total{task_class="cpu_short",environment="inline",outcome="timed_out"} 1',
    'harrier_agent_execution_duration_seconds_sum{task_class="cpu_short",environment="inline"} 0.03',
    'harrier_agent_execution_duration_seconds_bucket{le="0.025",task_class="cpu_short",environment="inline"} 0',
    'harrier_agent_execution_duration_seconds_bucket{le="0.05",task_class="cpu_short",environment="inline"} 1',
    'harrier_agent_environment_prepare_seconds_sum{environment="venv",cache="miss"} 1.5',
    'harrier_agent_active_executions 3',
    'harrier_agent_active_containers 2',
    'harrier_agent_link_connected 1',
    'harrier_agent_launcher_outdated 1',
    'harrier_agent_spool_bytes 99',
    'harrier_agent_gpu_utilization_ratio{gpu="GPU-a"} 0.5',
    'harrier_agent_gpu_memory_used_bytes{gpu="GPU-a"} 1024',
  ]) {
    expect(lines).toContain(line);
  }
  const help = 'Bytes of output and results that the control plane has not acknowledged; 0 when all is stored.';
  expect(await metrics.registry.getSingleMetricAsString('harrier_agent_spool_bytes')).toContain(help);
  expect(
    lines.filter((line) => line.startsWith('harrier_agent_gpu')),
    'cards without figures',
  ).toHaveLength(2);
  expect(lines.find((line) => line.startsWith('process_resident_memory_bytes'))).toBeDefined();
});

test('only counters are named _total', async () => {
  const { registry } = new AgentMetrics({
    activeExecutions: () => 0,
    activeContainers: () => 0,
    linked: () => false,
    launcherOutdated: () => false,
    spoolBytes: () => 0,
    hardware: () => HARDWARE,
  });
  for (const { name, type } of await registry.getMetricsAsJSON()) {
    if (name.endsWith('_total')) expect(`${name} ${type}`).toBe(`${name} counter`);
  }
});
