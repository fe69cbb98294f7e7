import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { create, execute } from '../support/executions.ts';
import { freePort } from '../support/free-port.ts';
import { http } from '../support/http.ts';
import { Program } from '../support/program.ts';
import { code, command } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';
import { ended, python, startRun, workflow } from '../support/workflows.ts';
import { directory, environment } from '../support/workspace.ts';

const stack = await startStack();
const [agent] = stack.agents;
const agentUrl = `${await agent?.metricsUrl()}/metrics`;

beforeAll(async () => {
  await execute(stack.executions, code('def handler(input):\n    return {}\n'));
  await execute(stack.executions, code('def handler(input):\n    raise ValueError()\n'));
  await execute(stack.executions, command('true'));
  const value = { source: 'export const handler = () => ({});', language: 'nodejs' };
  await execute(stack.executions, { target: { case: 'code', value } });
  await stack.clients.rest('GET', '/executions/x');
});

/** What promtool has to say of a page. */
async function promtool(page: string): Promise<{ code: number | null; text: string }> {
  const child = spawn('promtool', ['check', 'metrics'], { env: environment(), stdio: ['pipe', 'pipe', 'pipe'] });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data: Buffer) => {
      text += data;
    });
  }
  child.stdin.end(page);
  const exit = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  return { code: exit, text };
}

test.each([
  ['the control plane', () => stack.controlPlane.metricsUrl],
  ['the agent', () => agentUrl],
])('promtool finds nothing to say about the metrics of %s', async (_, url) => {
  const page = await http(url());
  expect(page.status).toBe(200);
  expect(await promtool(page.text)).toEqual({ code: 0, text: '' });
});

test('the metrics count what was done, by names that do not change, without ids', async () => {
  const { text } = await http(stack.controlPlane.metricsUrl);
  expect(text).toMatch(/^harrier_executions_total\{[^}]*state="SUCCEEDED"[^}]*\} 3$/im);
  expect(text).toMatch(/^harrier_executions_total\{[^}]*state="FAILED"[^}]*\} 1$/im);
  expect(text).toMatch(/^harrier_agents\{[^}]*\} 1$/m);
  for (const name of ['harrier_queue_depth', 'harrier_queue_wait_seconds', 'harrier_rpc_duration_seconds']) {
    expect(text).toContain(`# TYPE ${name} `);
  }
  const { text: ofAgent } = await http(agentUrl);
  for (const name of [
    'harrier_agent_executions_total',
    'harrier_agent_execution_duration_seconds',
    'harrier_agent_active_executions',
    'harrier_agent_spool_bytes',
  ]) {
    expect(ofAgent).toContain(`# TYPE ${name} `);
  }
  expect(ofAgent).toMatch(/^harrier_agent_executions_total\{[^}]*environment="inline",outcome="succeeded"\} 2$/m);
  expect(ofAgent).toMatch(/^harrier_agent_executions_total\{[^}]*environment="nodejs",outcome="succeeded"\} 1$/m);
  expect(ofAgent).toMatch(/^harrier_agent_link_connected 1$/m);
  expect(text + ofAgent).not.toMatch(/[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}/);
});

let prometheus: Program | undefined;
afterAll(async () => {
  await prometheus?.stop();
});

test('a real Prometheus scrapes agent and control plane, and answers a query', async () => {
  const port = await freePort();
  const data = directory('prometheus');
  const target = (url: string) => `      - targets: [${JSON.stringify(new URL(url).host)}]\n`;
  const job = (name: string, url: string) => `  - job_name: ${name}\n    static_configs:\n${target(url)}`;
  const config = join(data, 'prometheus.yml');
  writeFileSync(
    config,
    `global: {scrape_interval: 1s}\nscrape_configs:\n${job('agent', agentUrl)}${job('control-plane', stack.controlPlane.metricsUrl)}`,
  );
  prometheus = new Program({
    argv: [
      'prometheus',
      `--config.file=${config}`,
      `--storage.tsdb.path=${join(data, 'tsdb')}`,
      `--web.listen-address=127.0.0.1:${port}`,
    ],
    env: environment(),
    cwd: data,
  });
  const query = async (expression: string): Promise<Record<string, string>> => {
    const answer = await http(`http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(expression)}`).catch(
      () => undefined,
    );
    const results: { metric: { job: string }; value: [number, string] }[] = answer?.json?.data?.result ?? [];
    return Object.fromEntries(results.map(({ metric, value }) => [metric.job, value[1]]));
  };
  let up: Record<string, string> = {};
  await until(
    'both to be scraped',
    async () => {
      up = await query('up');
      return up.agent === '1' && up['control-plane'] === '1';
    },
    { seen: () => [up, prometheus?.stderr.slice(-500)] },
  );
  expect(await query('sum by (job) (harrier_agent_executions_total)')).toEqual({ agent: '4' });
  expect(await query('sum by (job) (harrier_executions_total)')).toEqual({ 'control-plane': '4' });
});

test('what waits is told by class, with its age and what keeps it from agents', async () => {
  const holding = await stack.addAgent({ name: 'one-slot', slots: 1, labels: { only: 'here' } });
  const slow = { ...code('import time\ndef handler(input):\n    time.sleep(3600)\n'), agentSelector: 'only=here' };
  const ids = await Promise.all(
    [slow, slow, { ...slow, taskClass: 'cpu_long' }].map((request) => create(stack.executions, request)),
  );
  const page = async () => (await http(stack.controlPlane.metricsUrl)).text;
  const value = (text: string, series: string) => text.split('\n').find((line) => line.startsWith(`${series} `));
  const sum = (text: string, series: RegExp) =>
    [...text.matchAll(series)].reduce((total, [, count]) => total + Number(count), 0);
  let text = '';
  // The depth on a page may be that of a page read just before.
  await until('two to wait for the slot', async () => {
    text = await page();
    return (
      sum(text, /^harrier_queue_blocked\{task_class="cpu_\w+",constraint="slots"\} (\d+)$/gm) === 2 &&
      sum(text, /^harrier_queue_depth\{task_class="cpu_(?:short|long)"\} (\d)$/gm) === 2
    );
  });
  expect(text).toMatch(/^harrier_queue_oldest_age_seconds\{task_class="cpu_(short|long)"\} 0?[0-9.e-]+$/m);
  expect(value(text, 'harrier_placement_duration_seconds_count{outcome="no_agent"}')).toMatch(/ [1-9]/);
  expect(value(text, 'harrier_slots{use="active"}')).toBe('harrier_slots{use="active"} 1');
  expect(text).toMatch(/^harrier_database_statement_duration_seconds_count\{pool="hot"\} [1-9]/m);
  expect(text).toMatch(/^harrier_database_batch_items_count\{batch="executions"\} [1-9]/m);
  expect(text).toMatch(/^harrier_link_bytes_total\{direction="received"\} [1-9]/m);
  for (const id of ids) await stack.executions.cancelExecution({ id });
  await holding.remove();
  await until('the agent to be counted as offline', async () =>
    /^harrier_agents\{state="offline"\} 1$/m.test(await page()),
  );
});

test('runs of workflows and their nodes are counted by state and kind', async () => {
  const nodes = {
    a: python('return {"list": [1, 2]}', { retry: { max_attempts: 2, initial_backoff: '0.01s' } }),
    m: { map: { items: 'nodes.a.output.list', run: { code: { source: 'def handler(input):\n    return {}\n' } } } },
    c: { condition: {} },
    no: python('return {}'),
  };
  const good = await startRun(stack.clients, workflow(nodes, ['a -> m', 'm -> c', 'c -> no ? false']), {});
  const bad = await startRun(stack.clients, workflow({ a: python('raise ValueError("no")') }, []), {});
  for (const id of [good, bad]) await ended(stack.clients, id);
  const page = async () => (await http(stack.controlPlane.metricsUrl)).text;
  // Whoever watches may see the end before it is counted.
  await until('the runs to be counted', async () => {
    const text = await page();
    return ['succeeded', 'failed'].every((state) =>
      text.includes(`\nharrier_workflow_runs_total{state="${state}"} 1\n`),
    );
  });
  const text = await page();
  const count = (kind: string) =>
    Number(new RegExp(`^harrier_workflow_node_seconds_count\\{kind="${kind}"\\} (\\d+)$`, 'm').exec(text)?.[1]);
  expect({ run: count('run'), map: count('map'), item: count('item'), condition: count('condition') }).toEqual({
    ...{ run: 2, map: 1, item: 2, condition: 1 },
  });
  await until('no run to be in memory', async () => /^harrier_workflow_runs_active 0$/m.test(await page()));
});
