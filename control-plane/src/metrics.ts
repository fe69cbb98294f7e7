import { createServer, type Server } from 'node:http';
import { type HostPort, messageOf } from '@harrier/shared';
import { Agent_State as AgentState } from '@harrier/shared/gen/agent';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';

/** From half a millisecond, for calls answered from memory, to ten minutes, for executions that are waited for. */
const RPC_BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600];
const WAIT_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600];

export interface MetricsSources {
  /** Queue entries by task class. */
  queueDepths: () => Promise<{ taskClass: string; depth: number }[]>;
  /** Agents by state, those of this replica. */
  agentStates: () => Map<AgentState, number>;
  /** Agents whose work is kept for them because most have gone at once. */
  heldAgents: () => number;
}

/** What the control plane tells Prometheus. No label names a tenant, a module or an execution. */
export interface Metrics {
  observeRpc(method: string, code: string, seconds: number): void;
  observeFinished(taskClass: string, state: State): void;
  observeQueueWait(seconds: number): void;
  observeRefused(reason: string): void;
  render(): Promise<string>;
}

export function createMetrics(sources: MetricsSources): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const executions = new Counter({
    name: 'harrier_executions_total',
    help: 'Executions that reached a final state.',
    labelNames: ['task_class', 'state'],
    registers,
  });
  const rpcDuration = new Histogram({
    name: 'harrier_rpc_duration_seconds',
    help: 'Duration of calls by method and Connect code (ok when there was none).',
    labelNames: ['method', 'code'],
    buckets: RPC_BUCKETS,
    registers,
  });
  const queueWait = new Histogram({
    name: 'harrier_queue_wait_seconds',
    help: 'Time from acceptance, or from the time that a retry was due, to assignment.',
    buckets: WAIT_BUCKETS,
    registers,
  });
  const refused = new Counter({
    name: 'harrier_executions_refused_total',
    help: 'Executions that were not accepted, by what there was too much of: queue, rate, store.',
    labelNames: ['reason'],
    registers,
  });
  new Gauge({
    name: 'harrier_queue_depth',
    help: 'Executions that wait for an agent, over all replicas.',
    labelNames: ['task_class'],
    registers,
    async collect() {
      this.reset();
      for (const { taskClass, depth } of await sources.queueDepths()) this.set({ task_class: taskClass }, depth);
    },
  });
  new Gauge({
    name: 'harrier_agents',
    help: 'Agents that are linked to this replica, by state.',
    labelNames: ['state'],
    registers,
    collect() {
      this.reset();
      for (const state of [AgentState.ONLINE, AgentState.DRAINING]) {
        this.set({ state: nameOf(AgentState, state) }, sources.agentStates().get(state) ?? 0);
      }
    },
  });
  new Gauge({
    name: 'harrier_held_agents',
    help: 'Agents whose work is kept for them, because most agents have gone at once; on the replica that looks after leases.',
    registers,
    collect() {
      this.set(sources.heldAgents());
    },
  });
  addProcessMetrics(registers);
  return {
    observeRpc: (method, code, seconds) => rpcDuration.observe({ method, code }, seconds),
    observeFinished: (taskClass, state) => executions.inc({ task_class: taskClass, state: nameOf(State, state) }),
    observeRefused: (reason) => refused.inc({ reason }),
    observeQueueWait: (seconds) => queueWait.observe(seconds),
    render: () => registry.metrics(),
  };
}

function nameOf(values: Readonly<Record<string, number>>, value: number): string {
  return (Object.entries(values).find(([, number]) => number === value)?.[0] ?? String(value)).toLowerCase();
}

/** The process metrics that every Prometheus client library has, under their usual names. */
function addProcessMetrics(registers: Registry[]): void {
  new Gauge({
    name: 'process_resident_memory_bytes',
    help: 'Resident memory size in bytes.',
    registers,
    collect() {
      this.set(process.memoryUsage.rss());
    },
  });
  new Gauge({
    name: 'process_start_time_seconds',
    help: 'Start time of the process since the Unix epoch in seconds.',
    registers,
  }).set(Math.round(Date.now() / 1000 - process.uptime()));
  new Counter({
    name: 'process_cpu_seconds_total',
    help: 'Total user and system CPU time spent in seconds.',
    registers,
    collect() {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc((user + system) / 1e6);
    },
  });
}

/** Serves `/metrics` on a port of its own, so that it need not be as open as the API. */
export async function serveMetrics(metrics: Metrics, address: HostPort): Promise<Server> {
  const server = createServer((request, response) => {
    if (request.method !== 'GET' || request.url?.split('?', 1)[0] !== '/metrics') {
      response.writeHead(404).end('metrics are at /metrics\n');
      return;
    }
    metrics.render().then(
      (text) => response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' }).end(text),
      (error: unknown) => response.writeHead(503).end(`${messageOf(error)}\n`),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(address.port, address.host, resolve);
  });
  return server;
}
