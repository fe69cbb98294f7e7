import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { parse } from 'yaml';
import { execute } from '../support/executions.ts';
import { freePort } from '../support/free-port.ts';
import { http } from '../support/http.ts';
import { isExported, metricFamilies, seriesIn } from '../support/metrics-page.ts';
import { Program, runProgram } from '../support/program.ts';
import { code } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';
import { directory, environment, REPOSITORY } from '../support/workspace.ts';

const PROMETHEUS = join(REPOSITORY, 'deploy/prometheus');
const GRAFANA = join(REPOSITORY, 'deploy/grafana');
const AGENT_TOKEN = 'token-of-the-agents';
const TRACE = '0af7651916cd43dd8448eb211c80319c';

const tokenFile = join(directory('tokens'), 'agents');
writeFileSync(tokenFile, `${AGENT_TOKEN}\n`);
const advertised = await freePort();
const stack = await startStack({
  agents: [
    {
      name: 'seen',
      labels: { zone: 'eu', 'example.org/rack': '7' },
      flags: ['--metrics-listen', `127.0.0.1:${advertised}`, '--metrics-advertise', `127.0.0.1:${advertised}`],
      env: { HARRIER_AGENT_METRICS_TOKEN_FILE: tokenFile },
    },
    // Its metrics are on the loopback, which nobody else can reach.
    { name: 'hidden' },
  ],
});
const [seen, hidden] = stack.agents;
const targetsUrl = `${stack.controlPlane.metricsUrl}/targets`;

const controlPlane = await metricFamilies(stack.controlPlane.metricsUrl);
const agent = await metricFamilies(`${await hidden?.metricsUrl()}/metrics`);
const all = new Map([...controlPlane, ...agent]);

interface Panel {
  id: number;
  title: string;
  targets?: { refId: string; expr: string }[];
  /** Those of a row that is folded up. */
  panels?: Panel[];
}

const dashboards = readdirSync(GRAFANA).map((name) => {
  const board = JSON.parse(readFileSync(join(GRAFANA, name), 'utf8')) as {
    uid: string;
    title: string;
    panels: Panel[];
    templating: { list: { name: string; query: string | { query: string } }[] };
  };
  return { name, board, panels: board.panels.flatMap((panel) => [panel, ...(panel.panels ?? [])]) };
});

test('dashboards have their own names, and each panel reads what a real process exports', () => {
  expect(dashboards.map(({ name }) => name).sort()).toEqual(['agent.json', 'fleet.json', 'queue.json']);
  expect(new Set(dashboards.map(({ board }) => board.uid)).size).toBe(dashboards.length);
  const missing = dashboards.flatMap(({ name, board, panels }) => {
    const read = panels.flatMap(({ title, targets = [] }) =>
      targets.flatMap(({ expr }) => seriesIn(expr).map((series) => ({ where: `${name}: ${title}`, series }))),
    );
    const variables = board.templating.list.flatMap(({ query }) => {
      const series = /^label_values\((\w+), \w+\)$/.exec(typeof query === 'string' ? query : query.query)?.[1];
      return series === undefined ? [] : [{ where: `${name}: variables`, series }];
    });
    expect(read.length, `${name} has panels`).toBeGreaterThan(10);
    return [...read, ...variables].filter(({ series }) => !isExported(series, all));
  });
  expect(missing).toEqual([]);
});

test('Prometheus understands the expression of each panel, and Grafana its variables', async () => {
  const rules = dashboards.flatMap(({ name, board, panels }) => {
    const values: Record<string, string> = { __rate_interval: '1m' };
    for (const variable of board.templating.list) values[variable.name] = 'gpu-7';
    return panels.flatMap(({ id, targets = [] }) =>
      targets.map(({ refId, expr }) => ({
        record: `${name.replace('.json', '')}:panel_${id}:${refId}`,
        expr: expr.replaceAll(/\$(\w+)/g, (whole, variable: string) => values[variable] ?? whole),
      })),
    );
  });
  expect(rules.filter(({ expr }) => expr.includes('$'))).toEqual([]);
  const file = join(directory('rules'), 'panels.yml');
  writeFileSync(file, JSON.stringify({ groups: [{ name: 'panels', rules }] }));
  const ran = await runProgram({ argv: ['promtool', 'check', 'rules', file], env: environment() });
  expect(ran, ran.stdout + ran.stderr).toMatchObject({ code: 0 });
  expect(ran.stdout).toContain(`SUCCESS: ${rules.length} rules found`);
});

interface Rule {
  alert: string;
  expr: string;
  annotations: { runbook: string };
}

const rules = (
  parse(readFileSync(join(PROMETHEUS, 'alerts.yml'), 'utf8')) as { groups: { rules: Rule[] }[] }
).groups.flatMap((group) => group.rules);

test('alerts read what a real process exports, and each is tried by a rule test and explained', async () => {
  expect(rules.flatMap(({ expr }) => seriesIn(expr)).filter((series) => !isExported(series, all))).toEqual([]);
  const ruleTests = readFileSync(join(PROMETHEUS, 'alerts_test.yml'), 'utf8');
  const page = readFileSync(join(REPOSITORY, 'docs/monitoring.md'), 'utf8');
  for (const { alert, annotations } of rules) {
    expect(ruleTests).toMatch(new RegExp(`alertname: ${alert}\\n +eval_time: \\S+\\n +exp_alerts:\\n`));
    expect(page).toContain(`\n### ${alert}\n`);
    expect(annotations.runbook).toBe(`docs/monitoring.md#${alert.toLowerCase()}`);
  }
  const env = environment();
  const ran = await runProgram({ argv: ['promtool', 'test', 'rules', 'alerts_test.yml'], env, cwd: PROMETHEUS });
  expect(ran, ran.stdout + ran.stderr).toMatchObject({ code: 0 });
});

test('the page about monitoring has every metric with its kind, and no other', () => {
  const page = readFileSync(join(REPOSITORY, 'docs/monitoring.md'), 'utf8');
  const rows = [...page.matchAll(/^\| `(harrier_[a-z0-9_]+)(?:\{[^`]*\})?` \| (\w+) \|/gm)];
  const told = new Map(rows.map(([, name = '', type = '']) => [name, type]));
  const own = [...all.values()].filter(({ name }) => name.startsWith('harrier_'));
  expect(Object.fromEntries(told)).toEqual(Object.fromEntries(own.map(({ name, type }) => [name, type])));
  expect(rows).toHaveLength(told.size);
});

test('the control plane tells Prometheus of the agents that advertise an address', async () => {
  const { status, headers, json } = await http(targetsUrl);
  expect([status, headers['content-type']]).toEqual([200, 'application/json']);
  expect(json).toEqual([
    {
      targets: [`127.0.0.1:${advertised}`],
      labels: {
        agent: 'seen',
        __meta_harrier_agent_id: await stack.idOf('seen'),
        __meta_harrier_agent_version: expect.any(String),
        __meta_harrier_agent_state: 'online',
        __meta_harrier_agent_label_zone: 'eu',
        __meta_harrier_agent_label_example_org_rack: '7',
      },
    },
  ]);
  const { agents } = await stack.clients.agents.listAgents({});
  expect(agents.map(({ name, metricsAddress }) => [name, metricsAddress]).sort()).toEqual([
    ['hidden', ''],
    ['seen', `127.0.0.1:${advertised}`],
  ]);
});

let prometheus: Program | undefined;
afterAll(async () => {
  await prometheus?.stop();
});

test('a real Prometheus finds the agents by the control plane, scrapes them, keeps exemplars, and sees one go', async () => {
  const port = await freePort();
  const data = directory('prometheus');
  const { host } = new URL(stack.controlPlane.metricsUrl);
  const config = readFileSync(join(PROMETHEUS, 'prometheus.yml'), 'utf8')
    .replaceAll('localhost:9464', host)
    .replaceAll(/(scrape_interval|evaluation_interval): 15s/g, '$1: 1s')
    .replace('refresh_interval: 30s', 'refresh_interval: 1s')
    .replace(
      '# authorization: { credentials_file: /etc/prometheus/harrier-agent-token }',
      `authorization: { credentials_file: ${tokenFile} }`,
    );
  writeFileSync(join(data, 'prometheus.yml'), config);
  writeFileSync(join(data, 'alerts.yml'), readFileSync(join(PROMETHEUS, 'alerts.yml')));
  prometheus = new Program({
    argv: [
      'prometheus',
      `--config.file=${join(data, 'prometheus.yml')}`,
      `--storage.tsdb.path=${join(data, 'tsdb')}`,
      `--web.listen-address=127.0.0.1:${port}`,
      '--enable-feature=exemplar-storage',
    ],
    env: environment(),
    cwd: data,
  });
  const ask = async (path: string) => {
    const answer = await http(`http://127.0.0.1:${port}/api/v1/${path}`).catch(() => undefined);
    return answer?.json?.data;
  };
  const query = async (expression: string): Promise<Record<string, string>[]> => {
    const { result = [] } = (await ask(`query?query=${encodeURIComponent(expression)}`)) ?? {};
    return result.map((one: { metric: Record<string, string>; value: [number, string] }) => {
      return { ...one.metric, value: one.value[1] };
    });
  };
  const isUp = (value: string) => async () =>
    (await query(`up{job="harrier-agents",agent="seen"} == ${value}`)).length === 1;
  const options = { seen: () => prometheus?.stderr.slice(-1500) };
  await until('the agent to be scraped', isUp('1'), options);
  expect(await query('up{job="harrier-agents"}')).toEqual([
    {
      ...{ __name__: 'up', job: 'harrier-agents', agent: 'seen', instance: `127.0.0.1:${advertised}`, value: '1' },
      agent_id: await stack.idOf('seen'),
    },
  ]);
  expect(await query('harrier_agent_link_connected')).toMatchObject([{ agent: 'seen', value: '1' }]);
  await until(
    'the control plane to be scraped',
    async () => (await query('up{job="harrier-control-plane"} == 1')).length === 1,
    options,
  );

  await execute(stack.executions, {
    ...code('def handler(input):\n    return {}\n'),
    traceParent: `00-${TRACE}-b7ad6b7169203331-01`,
  });
  const exemplars = `query_exemplars?query=harrier_execution_duration_seconds_bucket&start=0&end=${Date.now() / 1000 + 600}`;
  await until('an exemplar with the trace of the call', async () =>
    JSON.stringify(await ask(exemplars))?.includes(TRACE),
  );

  await seen?.stop();
  await until('Prometheus to miss the agent', isUp('0'), options);
  expect((await http(targetsUrl)).json).toMatchObject([{ labels: { __meta_harrier_agent_state: 'offline' } }]);
  await until(
    'the control plane to say so',
    async () => (await query('harrier_agents{state="offline"} == 1')).length === 1,
    options,
  );
});
