import { collectDefaultMetrics, Gauge } from 'prom-client';
import { VERSION } from '../version.ts';
import type { MetricsRegistry } from './exposition.ts';

/** Gauges named `_total`, which Prometheus keeps for counters. */
const BADLY_NAMED = ['nodejs_active_handles_total', 'nodejs_active_requests_total', 'nodejs_active_resources_total'];
/** The event loop's lag is sampled on a timer; the default of 10 ms would wake an idle process a hundred times a second. */
const LAG_SAMPLE_MS = 500;

/**
 * Memory, processor time, event loop and version of this process.
 * @param buildInfo name of the metric that tells the version
 */
export function collectProcessMetrics(register: MetricsRegistry, buildInfo: string): void {
  collectDefaultMetrics({ register, eventLoopMonitoringPrecision: LAG_SAMPLE_MS });
  for (const name of BADLY_NAMED) register.removeSingleMetric(name);
  new Gauge({
    name: buildInfo,
    help: 'Always 1; the labels say what runs.',
    labelNames: ['version', 'node'],
    registers: [register],
  }).set({ version: VERSION, node: process.version }, 1);
}
