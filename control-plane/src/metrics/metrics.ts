import { createRegistry, Exposition, type MetricsPage } from '@harrier/shared/metrics/exposition';
import { collectProcessMetrics } from '@harrier/shared/metrics/process-metrics';
import { type AgentSources, addAgentMetrics } from './agent-metrics.ts';
import { addDatabaseMetrics, type DatabaseSources } from './database-metrics.ts';
import { addEventMetrics, type EventSources } from './event-metrics.ts';
import { ExecutionMetrics, type ExtraLabel } from './execution-metrics.ts';
import { QueueMetrics, type QueueSources } from './queue-metrics.ts';
import { createRpcMetrics, type ObserveRpc } from './rpc-metrics.ts';
import { ScheduleMetrics } from './schedule-metrics.ts';
import { WorkflowMetrics } from './workflow-metrics.ts';

export interface MetricsSources {
  queue: QueueSources;
  agents: AgentSources;
  database: DatabaseSources;
  events: EventSources;
  /** Runs of workflows in memory. */
  workflowRuns: () => number;
}

/** What the control plane tells Prometheus. No label names a tenant, a module or an execution, unless the operator wants it. */
export interface Metrics {
  observeRpc: ObserveRpc;
  executions: ExecutionMetrics;
  queue: QueueMetrics;
  schedules: ScheduleMetrics;
  workflows: WorkflowMetrics;
  /** @param accept header of the request */
  render(accept: string | undefined): Promise<MetricsPage>;
}

/** @param extraLabels labels beyond those that have few values */
export function createMetrics(sources: MetricsSources, extraLabels: readonly ExtraLabel[]): Metrics {
  const register = createRegistry();
  const executions = new ExecutionMetrics(register, extraLabels);
  const queue = new QueueMetrics(register, sources.queue);
  const schedules = new ScheduleMetrics(register);
  const workflows = new WorkflowMetrics(register, sources.workflowRuns);
  const observeRpc = createRpcMetrics(register);
  addAgentMetrics(register, sources.agents);
  addDatabaseMetrics(register, sources.database);
  addEventMetrics(register, sources.events);
  collectProcessMetrics(register, 'harrier_build_info');
  const exposition = new Exposition(register);
  return { observeRpc, executions, queue, schedules, workflows, render: (accept) => exposition.render(accept) };
}
