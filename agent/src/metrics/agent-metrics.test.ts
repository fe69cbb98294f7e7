import { create } from '@bufbuild/protobuf';
import { HardwareSchema, type HostLoad, Hardware_Gpu_State as State } from '@harrier/shared/gen/agent';
import { Exposition } from '@harrier/shared/metrics/exposition';
import { expect, test } from 'vitest';
import { AgentMetrics, type MetricSources } from './agent-metrics.ts';

const HARDWARE = create(HardwareSchema, {
  memoryBytes: 64n,
  gpus: [
    {
      uuid: 'GPU-a',
      utilizationRatio: 0.5,
      memoryBytes: 2048n,
      memoryUsedBytes: 1024n,
      temperatureCelsius: 41,
      uncorrectedEccErrors: 2n,
      lastXid: 79,
      state: State.QUARANTINED,
      migInstances: [{ uuid: 'MIG-a', state: State.FREE }],
    },
    { uuid: 'GPU-lost' },
    { model: 'without a UUID' },
  ],
  disks: [{ mount: '/', sizeBytes: 10n, availableBytes: 4n }],
});
const TRACE = '0af7651916cd43dd8448eb211c80319c';

function createMetrics(
  changes: Partial<MetricSources> = {},
  labels: ConstructorParameters<typeof AgentMetrics>[1] = [],
) {
  const sources: MetricSources = {
    activeExecutions: () => 3,
    slots: () => 64,
    activeContainers: () => 2,
    draining: () => false,
    hardware: () => HARDWARE,
    load: () => ({ cpuRatio: 0.25, memoryAvailableBytes: 32n }) as HostLoad,
    launcher: {
      up: () => true,
      outdated: () => true,
      pid: () => process.pid,
      losses: () => 1,
      load: () => ({ active: 1, zygotes: 2, workers: 5 }),
    },
    spoolBytes: () => 99,
    link: {
      linked: () => true,
      counts: () => ({ dials: 4, opened: 3, framesReceived: 7, framesSent: 8, bytesReceived: 70, bytesSent: 80 }),
      leaseLeftMs: () => 12_500,
    },
    environments: {
      store: () => ({ environments: 2, bytes: 300, maxBytes: 1000, evictions: 1 }),
      builds: () => ({ running: 1, waiting: 2 }),
      onBuilt: (listener) => listener('failed', 42),
    },
    ...changes,
  };
  return new AgentMetrics(sources, labels);
}

async function linesOf(metrics: AgentMetrics): Promise<string[]> {
  return (await new Exposition(metrics.registry).render()).body
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'));
}

const FINISHED = { taskClass: 'cpu_short', environment: 'inline', tenant: 't1', traceParent: '' } as const;

test('the metrics of the contract are served', async () => {
  const metrics = createMetrics();
  metrics.attempts.observeFinished({ ...FINISHED, outcome: 'timed_out', runMs: 30 });
  metrics.attempts.observePrepared({ environment: 'venv', cache: 'miss', prepareMs: 1500 });
  metrics.attempts.observeRejected({ code: 'policy_denied' });
  const lines = await linesOf(metrics);
  for (const line of [
    'harrier_agent_executions_total{task_class="cpu_short",environment="inline",outcome="timed_out"} 1',
    'harrier_agent_execution_duration_seconds_sum{task_class="cpu_short",environment="inline"} 0.03',
    'harrier_agent_execution_duration_seconds_bucket{le="0.025",task_class="cpu_short",environment="inline"} 0',
    'harrier_agent_execution_duration_seconds_bucket{le="0.05",task_class="cpu_short",environment="inline"} 1',
    'harrier_agent_environment_prepare_seconds_sum{environment="venv",cache="miss"} 1.5',
    'harrier_agent_rejections_total{code="policy_denied"} 1',
    'harrier_agent_active_executions 3',
    'harrier_agent_slots 64',
    'harrier_agent_active_containers 2',
    'harrier_agent_draining 0',
    'harrier_agent_link_connected 1',
    'harrier_agent_link_dials_total 4',
    'harrier_agent_link_bytes_total{direction="sent"} 80',
    'harrier_agent_lease_remaining_seconds 12.5',
    'harrier_agent_launcher_outdated 1',
    'harrier_agent_launcher_workers 5',
    'harrier_agent_launcher_losses_total 1',
    'harrier_agent_spool_bytes 99',
    'harrier_agent_environment_store_bytes 300',
    'harrier_agent_environment_evictions_total 1',
    'harrier_agent_environment_build_duration_seconds_sum{result="failed"} 42',
    'harrier_agent_builds_waiting 2',
    'harrier_agent_gpu_utilization_ratio{gpu="GPU-a"} 0.5',
    'harrier_agent_gpu_memory_used_bytes{gpu="GPU-a"} 1024',
    'harrier_agent_gpu_temperature_celsius{gpu="GPU-a"} 41',
    'harrier_agent_gpu_uncorrected_ecc_errors_total{gpu="GPU-a"} 2',
    'harrier_agent_gpu_last_xid{gpu="GPU-a"} 79',
    'harrier_agent_gpu_state{gpu="GPU-a",state="quarantined"} 1',
    'harrier_agent_gpu_state{gpu="GPU-a",state="free"} 0',
    'harrier_agent_gpu_state{gpu="MIG-a",state="free"} 1',
    'harrier_agent_host_cpu_ratio 0.25',
    'harrier_agent_disk_available_bytes{mount="/"} 4',
  ]) {
    expect(lines).toContain(line);
  }
  const help = 'Bytes of output and results that the control plane has not acknowledged; 0 when all is stored.';
  expect(await metrics.registry.getSingleMetricAsString('harrier_agent_spool_bytes')).toContain(help);
  expect(
    lines.filter((line) => line.startsWith('harrier_agent_gpu_power')),
    'what the card does not tell',
  ).toEqual([]);
  expect(
    lines.filter((line) => /^harrier_agent_gpu_(utilization|memory_used|temperature)/.test(line)),
    'cards without figures',
  ).toHaveLength(3);
  const memory = lines.find((line) => line.startsWith('harrier_agent_launcher_resident_memory_bytes '));
  expect(Number(memory?.split(' ')[1])).toBeGreaterThan(1024 * 1024);
  expect(lines.find((line) => line.startsWith('process_resident_memory_bytes'))).toBeDefined();
});

test('what cannot be read is left out, and keeps nothing else from being read', async () => {
  const notNow = () => {
    throw new Error('not now');
  };
  const launcher = {
    up: () => true,
    outdated: () => false,
    // A process that has ended.
    pid: () => 2 ** 22 + 1,
    losses: () => 0,
    load: notNow,
  };
  const link = { linked: () => false, leaseLeftMs: () => undefined, counts: () => createCounts() };
  const lines = await linesOf(createMetrics({ launcher, spoolBytes: notNow, link, load: () => undefined }));
  const unread = ['spool_bytes', 'launcher_active', 'launcher_resident_memory_bytes'];
  const names = [...unread, 'lease_remaining_seconds', 'host_cpu_ratio'];
  expect(lines.filter((line) => names.some((name) => line.startsWith(`harrier_agent_${name}`)))).toEqual([]);
  expect(lines).toContain('harrier_agent_link_connected 0');
});

function createCounts() {
  return { dials: 0, opened: 0, framesReceived: 0, framesSent: 0, bytesReceived: 0, bytesSent: 0 };
}

test('whoever asks for OpenMetrics gets exemplars with the trace, others the text as before', async () => {
  const metrics = createMetrics();
  metrics.attempts.observeFinished({
    ...FINISHED,
    traceParent: `00-${TRACE}-b7ad6b7169203331-01`,
    outcome: 'succeeded',
    runMs: 30,
  });
  const exposition = new Exposition(metrics.registry);
  const [open, text] = await Promise.all([
    exposition.render('application/openmetrics-text;version=1.0.0,text/plain;q=0.5'),
    exposition.render(undefined),
  ]);
  expect(open.contentType).toMatch(/^application\/openmetrics-text; version=1\.0\.0/);
  expect(open.body).toContain(`# {trace_id="${TRACE}"} 0.03 `);
  expect(open.body).toContain('# TYPE harrier_agent_executions counter');
  expect(open.body.endsWith('\n# EOF\n')).toBe(true);
  expect(text.contentType).toMatch(/^text\/plain; version=0\.0\.4/);
  expect(text.body).toContain('# TYPE harrier_agent_executions_total counter');
  expect(text.body).not.toContain(TRACE);
});

test('tenants are a label only where the operator wants it', async () => {
  const metrics = createMetrics({}, ['tenant']);
  metrics.attempts.observeFinished({ ...FINISHED, outcome: 'succeeded', runMs: 30 });
  const line =
    'harrier_agent_executions_total{task_class="cpu_short",environment="inline",tenant="t1",outcome="succeeded"} 1';
  expect(await linesOf(metrics)).toContain(line);
});

test('only counters are named _total', async () => {
  for (const { name, type } of await createMetrics().registry.getMetricsAsJSON()) {
    if (name.endsWith('_total')) expect(`${name} ${type}`).toBe(`${name} counter`);
  }
});
