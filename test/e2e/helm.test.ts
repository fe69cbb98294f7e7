import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { kubernetesSchemas } from '../support/kubernetes-schemas.ts';
import { directory, environment, REPOSITORY } from '../support/workspace.ts';

const CHART = join(REPOSITORY, 'deploy/helm/harrier');
const OWN_SECRET = [
  ...['--set', 'secrets.databaseUrl=postgres://harrier@db/harrier'],
  ...['--set', `secrets.adminKey=hk_${'a'.repeat(43)}`],
];
const values = (name: string): string[] => ['--values', join(CHART, 'values', `${name}.yaml`)];
const ENVIRONMENTS: [string, string[]][] = [
  ['production', values('production')],
  ['staging', values('staging')],
  ['development', [...values('development'), ...OWN_SECRET]],
  [
    'everything',
    [
      ...values('production'),
      ...['--set', 'controlPlane.modules=modules: []', '--set', 'controlPlane.env.A=b'],
      ...['--set', 'controlPlane.bundles.persistentVolumeClaim.claimName=bundles'],
    ],
  ],
];
const KINDS = [
  ...['configmap-v1', 'daemonset-apps-v1', 'deployment-apps-v1', 'networkpolicy-networking-v1'],
  ...['poddisruptionbudget-policy-v1', 'secret-v1', 'service-v1', 'serviceaccount-v1'],
];

function run(program: string, args: readonly string[], input = '') {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8', input, env: environment() });
  if (error !== undefined) throw new Error(`${program} cannot be run; install it with: npm test`, { cause: error });
  return { status, output: `${stdout}${stderr}`, stdout };
}

function template(...args: string[]): string {
  const { status, stdout, output } = run('helm', ['template', 'my', CHART, '--namespace', 'work', ...args]);
  if (status !== 0) throw new Error(output);
  return stdout;
}

interface Container {
  name: string;
  image: string;
  securityContext: Record<string, unknown>;
  env?: { name: string; value?: string }[];
}

interface Manifest {
  kind: string;
  metadata: { name: string };
  spec: { template: { spec: { initContainers?: Container[]; containers: Container[]; [field: string]: unknown } } };
  [field: string]: unknown;
}

function manifests(kind: string, ...args: string[]): Manifest[] {
  const documents = parseAllDocuments(template(...args)).map((document) => document.toJS() as Manifest | null);
  return documents.filter((manifest): manifest is Manifest => manifest?.kind === kind);
}

describe.each(ENVIRONMENTS)('the chart with the values of %s', (_, args) => {
  test('passes helm lint', () => {
    const { status, output } = run('helm', ['lint', '--strict', CHART, ...args]);
    expect(status, output).toBe(0);
  });

  test.each(['1.30.0', '1.33.0', '1.37.0'])('is what Kubernetes %s takes', (version) => {
    const location = ['-schema-location', kubernetesSchemas(version, KINDS)];
    const { status, stdout } = run(
      'kubeconform',
      ['-strict', '-summary', '-output', 'json', ...location],
      template(...args),
    );
    const { resources, summary } = JSON.parse(stdout);
    expect([status, resources, summary]).toEqual([
      0,
      [],
      expect.objectContaining({ invalid: 0, errors: 0, skipped: 0 }),
    ]);
    expect(summary.valid).toBeGreaterThanOrEqual(7);
  });
});

test('what Kubernetes does not know is found', () => {
  const location = ['-schema-location', kubernetesSchemas('1.37.0', KINDS)];
  const wrong = template(...values('production')).replace('hostUsers:', 'hostUser:');
  const { status, stdout } = run('kubeconform', ['-strict', '-output', 'json', ...location], wrong);
  expect([status, stdout]).toEqual([1, expect.stringContaining('hostUser')]);
});

test.each([
  ['no secret', [], /secrets/],
  [
    'a key of another form',
    ['--set', 'secrets.databaseUrl=postgres://x', '--set', 'secrets.adminKey=secret'],
    /adminKey/,
  ],
  ['a value that does not exist', [...OWN_SECRET, '--set', 'controlPlane.replica=2'], /replica/],
  ['too few replicas', [...OWN_SECRET, '--set', 'controlPlane.replicas=0'], /controlPlane\/replicas/],
  ['an unknown sandbox', [...OWN_SECRET, '--set', 'agents.sandbox.mode=none'], /agents\/sandbox\/mode/],
  ['a field of a pool that does not exist', [...OWN_SECRET, '--set', 'agents.pools.cpu.gpus=1'], /gpus/],
])('the schema of the values refuses %s', (_, args, message) => {
  const { status, output } = run('helm', ['template', CHART, ...args]);
  expect([status, output]).toEqual([1, expect.stringMatching(message)]);
});

test('no pod has more than it needs', () => {
  const [deployment] = manifests('Deployment', ...values('production'));
  const agents = manifests('DaemonSet', ...values('production'));
  expect(agents.map(({ metadata }) => metadata.name)).toEqual(['my-harrier-agent-cpu', 'my-harrier-agent-gpu']);
  const confined = {
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    runAsNonRoot: true,
    capabilities: { drop: ['ALL'] },
  };
  expect(deployment?.spec.template.spec.containers[0]?.securityContext).toMatchObject(confined);
  for (const { spec } of agents) {
    const { hostUsers, automountServiceAccountToken, containers, initContainers } = spec.template.spec;
    expect([hostUsers, automountServiceAccountToken]).toEqual([false, false]);
    expect(containers[0]?.securityContext).toMatchObject({ ...confined, procMount: 'Unmasked' });
    const join = initContainers?.find(({ name }) => name === 'join');
    expect(join?.securityContext).toMatchObject(confined);
    expect(JSON.stringify(containers), 'the agent does not see the key').not.toContain('join-key');
    expect(JSON.stringify(join)).toContain('join-key');
  }
});

test('agents on GPU nodes are those of the GPU pool alone', () => {
  const [cpu, gpu] = manifests('DaemonSet', ...values('production')).map(({ spec }) => spec.template.spec);
  expect(JSON.stringify(cpu?.affinity)).toContain('{"key":"nvidia.com/gpu.present","operator":"DoesNotExist"}');
  expect(gpu).toMatchObject({ nodeSelector: { 'nvidia.com/gpu.present': 'true' }, runtimeClassName: 'nvidia' });
  expect(gpu?.containers[0]?.env).toContainEqual({ name: 'NVIDIA_VISIBLE_DEVICES', value: 'all' });
  expect(cpu?.containers[0]?.env?.map(({ name }) => name)).not.toContain('NVIDIA_VISIBLE_DEVICES');
});

test('images are taken by digest where one is given, else by tag, else by the version of the chart', () => {
  const digest = `sha256:${'0'.repeat(64)}`;
  const imageOf = (...args: string[]) =>
    manifests('Deployment', ...OWN_SECRET, ...args)[0]?.spec.template.spec.containers[0]?.image;
  expect(imageOf()).toBe('harrier/control-plane:0.1.0');
  expect(imageOf('--set', 'images.controlPlane.tag=v2')).toBe('harrier/control-plane:v2');
  expect(imageOf('--set', `images.controlPlane.digest=${digest}`)).toBe(`harrier/control-plane@${digest}`);
});

test('agents for other hosts are mounted where the image looks for them', () => {
  const claim = { persistentVolumeClaim: { claimName: 'bundles' } };
  const [deployment] = manifests(
    'Deployment',
    ...OWN_SECRET,
    '--set-json',
    `controlPlane.bundles=${JSON.stringify(claim)}`,
  );
  const pod = deployment?.spec.template.spec;
  expect(pod?.volumes).toContainEqual({ name: 'bundles', ...claim });
  expect(pod?.containers[0]).toMatchObject({
    volumeMounts: expect.arrayContaining([{ name: 'bundles', mountPath: '/opt/harrier/bundles', readOnly: true }]),
  });
});

interface Relabeling {
  sourceLabels?: string[];
  targetLabel: string;
  replacement?: string;
}

/** Labels of what a PodMonitor has scraped on the node `gpu-7`, as Prometheus gives them: the operator's own come first. */
function scraped({ metadata, spec }: Manifest): Record<string, string> {
  const [endpoint] = (spec as unknown as { podMetricsEndpoints: { relabelings: Relabeling[] }[] }).podMetricsEndpoints;
  const own: Relabeling = { targetLabel: 'job', replacement: `work/${metadata.name}` };
  const job = {
    job_name: `podMonitor/work/${metadata.name}/0`,
    relabel_configs: [own, ...(endpoint?.relabelings ?? [])].map(({ sourceLabels, targetLabel, replacement }) => ({
      ...(sourceLabels === undefined ? {} : { source_labels: sourceLabels }),
      ...{ target_label: targetLabel, ...(replacement === undefined ? {} : { replacement }) },
    })),
    static_configs: [{ targets: ['10.0.0.7:9465'], labels: { __meta_kubernetes_pod_node_name: 'gpu-7' } }],
  };
  const file = join(directory('prometheus'), 'prometheus.yml');
  writeFileSync(file, JSON.stringify({ scrape_configs: [job] }));
  const { status, stdout, output } = run('promtool', [
    ...['check', 'service-discovery', '--timeout=5s', file, job.job_name],
  ]);
  expect(status, output).toBe(0);
  return JSON.parse(stdout)[0].labels;
}

test('what the PodMonitors have scraped has the labels that alerts and dashboards go by', () => {
  const [controlPlane, agent] = manifests('PodMonitor', ...values('production')).map(scraped);
  expect(controlPlane).toMatchObject({ job: 'harrier-control-plane', instance: '10.0.0.7:9465' });
  expect(agent).toMatchObject({ job: 'harrier-agents', agent: 'gpu-7', instance: 'gpu-7' });
  const alerts = readFileSync(join(REPOSITORY, 'deploy/prometheus/alerts.yml'), 'utf8');
  const jobs = [...alerts.matchAll(/\bjob="([^"]+)"/g)].map(([, job]) => job);
  expect(jobs.toSorted()).toEqual([agent?.job, controlPlane?.job]);
});
