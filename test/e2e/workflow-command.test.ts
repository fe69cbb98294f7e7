// The examples of workflows, run with the command as their first lines say.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { fromJson } from '@bufbuild/protobuf';
import { WorkflowSchema } from '@harrier/shared/gen/workflow';
import { expect, test } from 'vitest';
import { Program, runProgram } from '../support/program.ts';
import { startStack } from '../support/stack.ts';
import { until, within } from '../support/wait.ts';
import { ended, startRun, untilNode } from '../support/workflows.ts';
import { directory, environment, REPOSITORY } from '../support/workspace.ts';

const stack = await startStack();
const COMMAND = [process.execPath, join(REPOSITORY, 'cli/bin/harrier.mjs'), 'workflows'] as const;
const example = (name: string) => join(REPOSITORY, 'examples/workflows', `${name}.yaml`);

async function workflows(...args: string[]) {
  const { url, apiKey } = stack.clients;
  const env = environment({ HARRIER_SERVER_URL: url, HARRIER_API_KEY: apiKey });
  return await runProgram({ argv: [...COMMAND, ...args], env });
}

async function statesOf(id: string): Promise<Record<string, string>> {
  const { stdout } = await workflows('runs', '--json');
  expect(stdout).toContain(id);
  const { run } = await stack.clients.workflows.getWorkflowRun({ id });
  return Object.fromEntries((run?.nodes ?? []).map(({ path, state }) => [path, String(state)]));
}

test('a data pipeline fans out, and its log is told on standard error', async () => {
  expect(await workflows('push', example('data-pipeline'))).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^data-pipeline 1\.0\.0 is registered \([0-9a-f]{12}\)\n$/),
  });
  const ran = await workflows('run', 'data-pipeline', '-i', '{"numbers": [3, 1, 4, 1, 5, 9, 2, 6], "size": 3}');
  expect(ran).toMatchObject({ code: 0, stdout: '{"sum":31,"parts":3}\n' });
  expect(ran.stderr).toContain('each[2]: succeeded\n');
  expect(await workflows('run', 'data-pipeline', '-i', '{}')).toMatchObject({ code: 2, stdout: '' });
});

test('an evaluation decides by a condition', async () => {
  expect((await workflows('push', example('model-evaluation'))).code).toBe(0);
  const ran = await workflows('run', 'model-evaluation', '-i', '{"model": "small", "sets": ["easy", "hard"]}');
  expect(ran.code).toBe(0);
  const output = JSON.parse(ran.stdout) as { released: boolean; worst: number };
  expect(output.released).toBe(output.worst >= 0.5);
  expect(ran.stderr).toContain('"variables.worst >= variables.threshold" is');
});

test('an approval is waited for before a GPU is', async () => {
  expect((await workflows('push', example('approved-training'))).code).toBe(0);
  const start = async () => (await workflows('run', 'approved-training', '-d', '-i', '{"epochs": 3}')).stdout.trim();
  const refused = await start();
  await until('the approval to be waited for', async () => (await statesOf(refused)).approval === '8');
  expect(await workflows('signal', refused, 'approval', '-p', '{"approved": "yes"}')).toMatchObject({ code: 2 });
  expect(await workflows('signal', refused, 'approval', '-p', '{"approved": false}')).toMatchObject({ code: 0 });
  expect(await workflows('watch', refused)).toMatchObject({ code: 0, stdout: '{"trained":0}\n' });

  const approved = await start();
  await until('the approval to be waited for', async () => (await statesOf(approved)).approval === '8');
  expect((await workflows('signal', approved, 'approval', '-p', '{"approved": true}')).code).toBe(0);
  // There is no GPU here: the execution waits for one, and says so.
  const waiting = await until('the job to wait for a GPU', async () => {
    const { executions } = await stack.executions.listExecutions({ labelSelector: `workflow-run=${approved}` });
    const job = executions.find(({ taskClass }) => taskClass === 'gpu');
    return job === undefined ? undefined : (await stack.executions.getExecution({ id: job.id })).execution;
  });
  expect(waiting.waitingReason).toContain('GPU');
  expect((await workflows('cancel', approved, '--reason', 'no card')).code).toBe(0);
  expect(await workflows('watch', approved)).toMatchObject({ code: 130, stderr: expect.stringContaining('no card') });
});

test('runs are listed by workflow, state, label and time', async () => {
  const { workflows: client } = stack.clients;
  for (const name of ['quick', 'hold']) {
    const node = name === 'hold' ? { signal: {} } : { transform: { expression: 'input' } };
    const workflow = fromJson(WorkflowSchema, { name, version: '1.0.0', nodes: [{ id: 'n', ...node }] });
    await client.createWorkflow({ workflow });
  }
  const start = async (name: string, team: string) => {
    const { run } = await client.runWorkflow({ name, labels: { team } });
    return run?.id ?? '';
  };
  const [quick, other, hold] = [await start('quick', 'a'), await start('quick', 'b'), await start('hold', 'a')];
  for (const id of [quick, other]) await ended(stack.clients, id);
  await untilNode(stack.clients, hold, 'n', 'WAITING');
  const listed = async (...flags: string[]) => {
    const { stdout, stderr } = await workflows('runs', ...flags);
    expect(stderr).toBe('');
    return stdout.split('\n').flatMap((line) => (line === '' ? [] : [line.split('\t')[0]]));
  };
  expect(await listed('quick')).toEqual([other, quick]);
  expect(await listed('--selector', 'team=a')).toEqual([hold, quick]);
  expect(await listed('--selector', 'team in (a, b)', '--state', 'SUCCEEDED')).toEqual([other, quick]);
  expect(await listed('hold', '--state', 'RUNNING', '--since', '1h')).toEqual([hold]);
  expect(await listed('quick', '--until', '1h')).toEqual([]);
  expect(await workflows('runs', '--state', 'DONE')).toMatchObject({ code: 2, stdout: '' });
  await client.cancelWorkflowRun({ id: hold });
});

test('a terminal shows the nodes in their order, those to come too, and no more than it has room for', async () => {
  const rows = 10;
  const steps = Array.from({ length: 20 }, (_, i) => `step-${i}`);
  const nodes = [
    { id: 'ask', signal: {} },
    ...steps.map((id) => ({ id, transform: { expression: '"of a chain whose nodes come one after the other"' } })),
  ];
  const edges = steps.map((to, i) => ({ from: steps[i - 1] ?? 'ask', to }));
  const id = await startRun(stack.clients, { name: 'chain', version: '1.0.0', nodes, edges });
  const { url, apiKey } = stack.clients;
  const env = environment({ HARRIER_SERVER_URL: url, HARRIER_API_KEY: apiKey, TERM: 'xterm', SHELL: '/bin/sh' });
  const command = `stty rows ${rows} cols 40; exec ${[...COMMAND, 'watch', id].join(' ')}`;
  const watch = new Program({ argv: ['script', '-qec', command, '/dev/null'], env });
  try {
    const shown = () => stripVTControlCharacters(watch.stdout).replaceAll('\r', '');
    const first = [
      '◌ ask  signal; waits for a signal',
      '· step-0  transform; after ask',
      '· step-1  transform; after step-0\n',
    ].join('\n');
    await until('the chain to be drawn', () => shown().includes(first), { seen: shown });
    expect(shown()).toContain('… and 13 more: 13 pending\n');
    await stack.clients.workflows.signalWorkflowRun({ id, path: 'ask', payloadJson: '{}' });
    expect(await within('the end of the watch', watch.exited)).toMatchObject({ code: 0 });
    expect(shown()).toContain('✔ step-5  transform; after step-4\n');
    // How many lines the cursor is moved up: to the top of what is drawn, which the terminal still has.
    const moves = watch.stdout.split('\x1b[').flatMap((part) => /^\d+(?=A)/.exec(part)?.[0] ?? []);
    expect(new Set(moves)).toEqual(new Set([String(rows - 1)]));
  } finally {
    if (watch.running) await watch.stop('SIGKILL');
  }
});

test('what is wrong with a file is told with line and column', async () => {
  const file = join(directory('workflow'), 'bad.yaml');
  writeFileSync(
    file,
    'name: bad\nversion: "1.0.0"\nnodes:\n  - id: a\n    transform: { expression: "1 +" }\n  - id: b\n    transform: { expression: nodes.c.output }\n',
  );
  const { code, stderr } = await workflows('push', file);
  expect(code).toBe(2);
  expect(stderr).toContain(`${file}:5:30: nodes[0].transform.expression: "1 +" is not an expression`);
  expect(stderr).toContain(
    `${file}:7:30: nodes[1].transform.expression: "nodes.c.output" names the node "c", which there is not`,
  );
  writeFileSync(file, 'name: bad\nversion: "1.0.0"\nnodes:\n  - id: a\n    transfrm: {}\n');
  expect((await workflows('push', file)).stderr).toMatch(/bad\.yaml:4:5: nodes\[0\]: .*transfrm/);
});

test('a graph is printed for Mermaid, and as its definition', async () => {
  const file = example('approved-training');
  const { stdout } = await workflows('graph', file);
  const named = (node: string) => new RegExp(`^  (n\\d+)\\W+${node}: `, 'm').exec(stdout)?.[1];
  expect(stdout).toContain('flowchart TD\n');
  expect(named('approved')).toBeDefined();
  expect(stdout).toContain(`${named('approved')} -->|"default"| ${named('give-up')}\n`);
  const definition = JSON.parse((await workflows('graph', file, '--json')).stdout);
  expect(definition).toMatchObject({ name: 'approved-training' });
  expect(definition.nodes).toContainEqual(expect.objectContaining({ id: 'give-up' }));
  await workflows('push', file);
  const { stdout: registered } = await workflows('graph', 'approved-training', '--json');
  expect(JSON.parse(registered)).toMatchObject({ ...definition, digest: expect.stringMatching(/^[0-9a-f]{64}$/) });
});
