import { createRegistry, Exposition } from '@harrier/shared/metrics/exposition';
import { expect, test } from 'vitest';
import { ServiceMetrics } from './service-metrics.ts';

test('the metrics of services have service and environment as labels', async () => {
  const registry = createRegistry();
  const running = new Map([
    ['cache', true],
    ['queue', false],
  ]);
  const metrics = new ServiceMetrics(registry, 'production', () => running);
  metrics.onStarted('cache');
  metrics.onStopped('queue');
  metrics.onEngineCall({ operation: 'pull', service: 'cache', durationMs: 20_000 });
  const lines = (await new Exposition(registry).render()).body.split('\n');
  for (const line of [
    'harrier_agent_service_starts_total{service="cache",environment="production"} 1',
    'harrier_agent_service_stops_total{service="queue",environment="production"} 1',
    'harrier_agent_active_services{service="cache",environment="production"} 1',
    'harrier_agent_active_services{service="queue",environment="production"} 0',
    'harrier_agent_docker_api_duration_seconds_sum{service="cache",environment="production",operation="pull"} 20',
    'harrier_agent_docker_api_duration_seconds_bucket{le="10",service="cache",environment="production",operation="pull"} 0',
    'harrier_agent_docker_api_duration_seconds_bucket{le="30",service="cache",environment="production",operation="pull"} 1',
  ]) {
    expect(lines).toContain(line);
  }
  running.delete('queue');
  expect(await registry.getSingleMetricAsString('harrier_agent_active_services')).not.toContain('queue');
});
