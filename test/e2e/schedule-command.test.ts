import { join } from 'node:path';
import { fromJson } from '@bufbuild/protobuf';
import { WorkflowSchema } from '@harrier/shared/gen/workflow';
import { beforeAll, expect, test } from 'vitest';
import { runProgram } from '../support/program.ts';
import { makeSchedule, schedule, untilFirings } from '../support/schedules.ts';
import { startStack } from '../support/stack.ts';
import { environment, REPOSITORY } from '../support/workspace.ts';

const stack = await startStack({ agents: [] });
const COMMAND = [process.execPath, join(REPOSITORY, 'cli/bin/harrier.mjs'), 'schedules'] as const;
const QUICK = { name: 'quick', version: '1.0.0', nodes: [{ id: 't', transform: { expression: 'input' } }] };

beforeAll(async () => {
  await stack.clients.workflows.createWorkflow({ workflow: fromJson(WorkflowSchema, QUICK) });
  for (const name of ['echo', 'other']) {
    await stack.modules.createModule({
      module: { name, version: '1.0.0', code: 'def handler(input):\n    return input\n' },
    });
  }
});

async function schedules(...args: string[]) {
  const { url, apiKey } = stack.clients;
  const env = environment({ HARRIER_SERVER_URL: url, HARRIER_API_KEY: apiKey });
  return await runProgram({ argv: [...COMMAND, ...args], env });
}

test('a schedule is made, shown, changed, paused, resumed and removed', async () => {
  const cron = ['--cron', '0 30 2 * * *', '--time-zone', 'Europe/Berlin'];
  const made = await schedules('create', 'nightly', ...cron, '--module', 'echo', '--overlap', 'skip', '--jitter', '5m');
  expect(made, made.stderr).toMatchObject({ code: 0 });
  const fields = made.stdout.split('\n').map((line) => line.split('\t'));
  expect(fields).toEqual(
    expect.arrayContaining([
      ['name', 'nightly'],
      ['times', '0 30 2 * * * Europe/Berlin'],
      ['target', 'module echo'],
      ['misfire', 'ONCE'],
      ['overlap', 'SKIP'],
      ['jitter', '5 min 0 s'],
      ['next', expect.stringMatching(/T0[01]:30:00\.000Z$/)],
    ]),
  );
  const shown = JSON.parse((await schedules('get', 'nightly', '-n', '2', '--json')).stdout);
  expect(shown).toMatchObject({ name: 'nightly', jitter: '300s', overlap: { policy: 'SKIP' } });
  expect(shown.nextTimes).toHaveLength(2);
  expect((await schedules('ls')).stdout).toBe(
    `nightly\t0 30 2 * * * Europe/Berlin\tmodule echo\t${new Date(shown.nextTimes[0]).toISOString()}\n`,
  );

  const changed = await schedules(
    'update',
    'nightly',
    '--every',
    '2h',
    '--workflow',
    'quick',
    '-i',
    '{"a": 1}',
    '--json',
  );
  expect(JSON.parse(changed.stdout)).toMatchObject({ id: shown.id, interval: '7200s', workflow: { name: 'quick' } });
  expect(JSON.parse(changed.stdout)).toMatchObject({ jitter: '300s', overlap: { policy: 'SKIP' } });
  expect((await schedules('pause', 'nightly')).stdout).toContain('paused\tyes\n');
  expect((await schedules('ls')).stdout).toBe('nightly\tevery 2 h 0 min\tworkflow quick\tpaused\n');
  expect((await schedules('resume', 'nightly')).stdout).not.toContain('paused');
  expect(await schedules('rm', 'nightly')).toMatchObject({ code: 0, stdout: 'nightly is removed\n' });
  expect(await schedules('get', 'nightly')).toMatchObject({ code: 2, stderr: expect.stringContaining('"nightly"') });
});

test('what an update does not name stays as it is, a pause too', async () => {
  const cron = ['--cron', '0 30 2 * * *', '--time-zone', 'Europe/Berlin', '--end', '2090-01-01T00:00:00Z'];
  const all = ['--misfire', 'all', '--grace', '90s', '--max-missed', '7', '--overlap', 'queue', '--max-queued', '3'];
  const target = ['--module', 'echo', '--version', '1.0.0', '-i', '{"a": 1}'];
  expect((await schedules('create', 'kept', ...cron, ...all, ...target, '--paused')).code).toBe(0);
  const update = async (...args: string[]) => {
    const { stdout, stderr } = await schedules('update', 'kept', ...args, '--json');
    expect(stderr).toBe('');
    const { id, createTime, updateTime, ...says } = JSON.parse(stdout) as Record<string, unknown>;
    return says;
  };
  const before = await update();
  expect(before).toEqual({
    name: 'kept',
    cron: { expression: '0 30 2 * * *', timeZone: 'Europe/Berlin' },
    run: { module: 'echo', version: '1.0.0', inputJson: '{"a": 1}' },
    misfire: { policy: 'ALL', grace: '90s', max: 7 },
    overlap: { policy: 'QUEUE', maxQueued: 3 },
    endTime: '2090-01-01T00:00:00Z',
    paused: true,
  });
  const { endTime, ...endless } = before;
  const later = { ...endless, cron: { expression: '0 0 4 * * *', timeZone: 'Europe/Berlin' } };
  expect(await update('--cron', '0 0 4 * * *', '--no-end')).toEqual(later);
  const input = { ...later, run: { module: 'echo', version: '1.0.0', inputJson: '{"a":2}' }, description: 'mine' };
  expect(await update('-i', '{"a":2}', '--description', 'mine')).toEqual(input);
  const other = { ...input, overlap: { policy: 'SKIP', maxQueued: 3 }, workflow: { name: 'quick', inputJson: '{}' } };
  const { run, ...workflow } = other;
  expect(await update('--workflow', 'quick', '--overlap', 'skip')).toEqual(workflow);
  expect((await schedules('resume', 'kept')).stdout).not.toContain('paused');
  expect(await update('--jitter', '1s')).not.toHaveProperty('paused');
  expect(await update('--paused')).toMatchObject({ paused: true, jitter: '1s' });
  for (const args of [
    ['--time-zone', 'UTC', '--every', '1h'],
    ['--cron', '@daily', '--every', '1h'],
    ['--module', 'echo', '--workflow', 'quick'],
  ]) {
    expect(await schedules('update', 'kept', ...args)).toMatchObject({ code: 2, stdout: '' });
  }
  expect(await schedules('update', 'none', '--jitter', '1s')).toMatchObject({ code: 2, stdout: '' });
  expect((await schedules('rm', 'kept')).code).toBe(0);
});

test('an update that names another module or workflow changes what it is, its version and input, and nothing else', async () => {
  const rest = {
    labels: { team: 'a' },
    env: { MODE: 'full' },
    timeout: '90s',
    taskClass: 'cpu_short',
    agentSelector: 'site=a',
    priority: 7,
    retryPolicy: { maxAttempts: 5 },
  };
  const run = { ...rest, module: 'echo', version: '1.0.0', input: { a: 1 } };
  const times = { cron: { expression: '@yearly' }, paused: true };
  const name = await makeSchedule(stack.clients, { ...times, run });
  const update = async (...args: string[]) => {
    const { stdout, stderr } = await schedules('update', name, ...args, '--json');
    expect(stderr).toBe('');
    const { run, workflow } = JSON.parse(stdout) as Record<string, unknown>;
    return { run, workflow };
  };
  const other = await update('--module', 'other', '-i', '{"b":2}');
  expect(other).toEqual({ run: { ...rest, module: 'other', inputJson: '{"b":2}' } });
  const versioned = await update('--module', 'echo', '--version', '1.0.0');
  expect(versioned).toEqual({ run: { ...rest, module: 'echo', version: '1.0.0', inputJson: '{}' } });
  expect(await update('--workflow', 'quick')).toEqual({ workflow: { name: 'quick', inputJson: '{}' } });

  const workflow = { name: 'quick', version: '1.0.0', input: { a: 1 }, labels: { team: 'a' } };
  await stack.clients.schedules.updateSchedule({ name, schedule: schedule({ ...times, name, workflow }) });
  const again = await update('--workflow', 'quick', '-i', '{"b":2}');
  expect(again).toEqual({ workflow: { name: 'quick', inputJson: '{"b":2}', labels: { team: 'a' } } });
  expect(await update('--module', 'echo')).toEqual({ run: { module: 'echo', inputJson: '{}' } });
  await stack.clients.schedules.deleteSchedule({ name });
});

test('of updates at once none is lost', async () => {
  const name = await makeSchedule(stack.clients, {
    cron: { expression: '@yearly' },
    paused: true,
    workflow: { name: 'quick' },
  });
  const updates = [
    ['--description', 'mine'],
    ['--jitter', '5s'],
    ['--overlap', 'skip'],
    ['--misfire', 'all'],
    ['-i', '{"a": 1}'],
  ];
  const made = await Promise.all(updates.map((args) => schedules('update', name, ...args)));
  expect(made.map(({ code, stderr }) => ({ code, stderr }))).toEqual(updates.map(() => ({ code: 0, stderr: '' })));
  expect(JSON.parse((await schedules('get', name, '--json')).stdout)).toMatchObject({
    ...{ description: 'mine', jitter: '5s', overlap: { policy: 'SKIP' }, misfire: { policy: 'ALL' }, paused: true },
    workflow: { name: 'quick', inputJson: '{"a": 1}' },
  });
  await stack.clients.schedules.deleteSchedule({ name });
});

test('firings are listed with what they started', async () => {
  expect((await schedules('create', 'often', '--every', '1s', '--workflow', 'quick')).code).toBe(0);
  await untilFirings(stack.clients, 'often', 'STARTED', 2);
  await schedules('pause', 'often');
  const { stdout } = await schedules('firings', 'often');
  const rows = stdout.slice(0, -1).split('\n');
  expect(rows.length).toBeGreaterThanOrEqual(2);
  for (const row of rows) {
    expect(row.split('\t')).toEqual([
      expect.stringMatching(/Z$/),
      'STARTED',
      expect.stringMatching(/Z$/),
      expect.stringMatching(/^[0-9a-f-]{36}$/),
      '',
    ]);
  }
  const { firings } = JSON.parse(
    (await schedules('firings', 'often', '-n', '1', '--state', 'STARTED', '--json')).stdout,
  );
  expect(firings).toEqual([expect.objectContaining({ state: 'STARTED', runId: rows[0]?.split('\t')[3] })]);
  expect(await schedules('firings', 'often', '--state', 'SKIPPED')).toMatchObject({ code: 0, stdout: '' });
});

test('what the control plane refuses is told', async () => {
  expect(await schedules('create', 'bad', '--cron', '61 * * * *', '--module', 'echo')).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('schedule.cron.expression'),
  });
});
