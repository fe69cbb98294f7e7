import type { MetricsRegistry } from '@harrier/shared/metrics/exposition';
import { Histogram } from 'prom-client';
import { exemplarOf } from './exemplar.ts';

/** From half a millisecond, for calls answered from memory, to ten minutes, for executions that are waited for. */
const BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600];

/** @param traceParent of the call, where it is part of a trace */
export type ObserveRpc = (method: string, code: string, seconds: number, traceParent?: string) => void;

export function createRpcMetrics(register: MetricsRegistry): ObserveRpc {
  const duration = new Histogram({
    name: 'harrier_rpc_duration_seconds',
    help: 'Duration of calls by method and Connect code (ok when there was none).',
    labelNames: ['method', 'code'],
    buckets: BUCKETS,
    enableExemplars: true,
    registers: [register],
  });
  return (method, code, seconds, traceParent) => {
    duration.observe({ labels: { method, code }, value: seconds, exemplarLabels: exemplarOf(traceParent) });
  };
}
