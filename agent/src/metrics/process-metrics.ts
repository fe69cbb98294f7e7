import { collectDefaultMetrics, type Registry } from 'prom-client';

/** Gauges named `_total`, which Prometheus keeps for counters. */
const BADLY_NAMED = ['nodejs_active_handles_total', 'nodejs_active_requests_total', 'nodejs_active_resources_total'];
/** The event loop's lag is sampled on a timer; the default of 10 ms would wake an idle agent a hundred times a second. */
const LAG_SAMPLE_MS = 500;

/** Memory, processor time and event loop of this process. */
export function collectProcessMetrics(register: Registry): void {
  collectDefaultMetrics({ register, eventLoopMonitoringPrecision: LAG_SAMPLE_MS });
  for (const name of BADLY_NAMED) register.removeSingleMetric(name);
}
