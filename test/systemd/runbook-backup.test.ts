import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Operator } from '../support/operator.ts';
import { Runbook } from '../support/runbook.ts';
import { until } from '../support/wait.ts';

// docs/operations/backup.md: its commands are run as they stand there, with the day of the backup in the place of the page's.
const STEP_MS = 900_000;
const page = new Runbook('backup');
const operator = await Operator.boot();
afterAll(() => operator.stop());
await operator.installAgent();

const SOON = 'def handler(input): return {}\n';
const QUIET = 'import os, time\ndef handler(input):\n    while True: time.sleep(1)\n';
const PRINTING =
  'import time\ndef handler(input):\n    while True:\n        print("line", flush=True)\n        time.sleep(0.2)\n';

const today = new Date().toISOString().slice(0, 10);
const dated = (script: string): string => script.replaceAll('2026-01-31', today);

test('the page has these steps', () => {
  expect(page.steps).toEqual(['An external server', 'The embedded server']);
});

/** Of every kind of execution one, before the backup. */
async function work() {
  // A backup may take longer than the minute of the default class.
  const taskClass = 'cpu_long';
  const [ended, waiting, quiet, printing, last] = [
    await operator.start(SOON),
    await operator.start(SOON, { agentSelector: 'no=where' }),
    await operator.start(QUIET, { taskClass }),
    await operator.start(PRINTING, { taskClass, retryPolicy: { maxAttempts: 2 } }),
    await operator.start(PRINTING, { taskClass, retryPolicy: { maxAttempts: 1 } }),
  ];
  await operator.untilExecution(ended, 'SUCCEEDED');
  for (const id of [quiet, printing, last]) await operator.untilExecution(id, 'RUNNING');
  for (const id of [printing, last]) await untilLonger(id, 0);
  return { ended, waiting, quiet, printing, last, endedAt: (await operator.execution(ended)).endTime };
}

/** Waits until more of an execution's output is stored. @param than bytes */
async function untilLonger(id: string, than: number): Promise<void> {
  await until(`more output of ${id}`, async () => (await logOf(id)).length > than);
}

const logOf = async (id: string): Promise<string> => await operator.run(`harrier logs ${id}`);

/** What has become of `work` in a database that is older than what the agent has told. */
async function untilSettled({ ended, waiting, quiet, printing, last, endedAt }: Awaited<ReturnType<typeof work>>) {
  await operator.untilAgent('gpu-7', 'ONLINE');
  await until('another attempt', async () => {
    const { state, attempt } = await operator.execution(printing);
    return state === 'RUNNING' && attempt === 2;
  });
  await untilLonger(printing, 0);
  await operator.untilExecution(last, 'FAILED');
  expect((await operator.execution(last)).error).toMatchObject({
    code: 'AGENT_LOST',
    message: expect.stringContaining('does not have output any more'),
  });
  expect(await operator.execution(ended)).toMatchObject({ state: 'SUCCEEDED', attempt: 1, endTime: endedAt });
  expect(await operator.execution(quiet)).toMatchObject({ state: 'RUNNING', attempt: 1 });
  expect(await operator.execution(waiting)).toMatchObject({ state: 'PENDING' });
  for (const id of [quiet, printing, waiting]) await operator.run(`harrier executions cancel ${id}`);
  await operator.untilExecution(quiet, 'CANCELLED');
  await operator.untilExecution(printing, 'CANCELLED');
  expect(await logOf(printing)).toMatch(/^(line\n)+$/);
}

describe('the embedded server', () => {
  const [archive, dump, restore] = page.blocks('The embedded server', 3);

  test('is backed up while its agents go on, and restored: what ran since is settled', {
    timeout: STEP_MS,
  }, async () => {
    const before = await work();
    const length = (await logOf(before.printing)).length;
    await operator.run(archive);
    await operator.untilAgent('gpu-7', 'ONLINE');
    for (const id of [before.printing, before.last, before.quiet]) {
      expect(await operator.execution(id)).toMatchObject({ state: 'RUNNING', attempt: 1 });
    }
    await untilLonger(before.printing, length);
    await untilLonger(before.last, length);
    const later = await operator.start(SOON);
    await operator.untilExecution(later, 'SUCCEEDED');
    await operator.startOtherAgent();

    expect(await operator.run(dated(restore))).toContain('SERVING');
    await untilSettled(before);
    expect((await operator.try(`harrier executions get ${later}`)).stderr).toContain('not_found');
    await until(
      'the agent that joined later to be refused',
      async () => (await operator.host.property('gpu-8', 'ExecMainStatus')) === '77',
    );
    expect(await operator.host.shell('journalctl --unit=gpu-8 --output=cat')).toContain('is not known by this key');
  });

  test('needs a pg_dump that is no older than it', async () => {
    expect(await operator.try(dump)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('server version mismatch'),
    });
  });
});

describe('an external server', () => {
  const [dump, restore] = page.blocks('An external server', 2);
  const password = randomBytes(16).toString('hex');

  beforeAll(async () => {
    await operator.host.shell(`
      set -e
      runuser -u postgres -- psql --command="CREATE ROLE harrier LOGIN CREATEDB PASSWORD '${password}'"
      runuser -u postgres -- createdb --owner=harrier --encoding=UTF8 --template=template0 harrier
      echo 'HARRIER_DATABASE_URL=postgres://harrier:${password}@DB/harrier' >> /etc/harrier/control-plane.env
      systemctl restart harrier-control-plane
      /opt/harrier/bin/harrier-agent-ctl uninstall`);
    await operator.run(`(umask 077; echo 'DB:5432:*:harrier:${password}' > ~/.pgpass)`);
    await operator.takeKey();
    await operator.installAgent();
    operator.set('SUDO_EDITOR', 'sed -i s,@DB/harrier$,@DB/harrier_restored,');
  }, STEP_MS);

  test('is backed up under load, and restored into another database', { timeout: STEP_MS }, async () => {
    const before = await work();
    await operator.run(dump);
    expect(await operator.run(`stat -c %a harrier-${today}.dump`)).toBe('600\n');
    const length = (await logOf(before.printing)).length;
    await untilLonger(before.printing, length);
    await untilLonger(before.last, length);
    const later = await operator.start(SOON);
    await operator.untilExecution(later, 'SUCCEEDED');

    await operator.run(dated(restore));
    await untilSettled(before);
    expect((await operator.try(`harrier executions get ${later}`)).stderr).toContain('not_found');
    const connected = await operator.host.shell(
      `runuser -u postgres -- psql --tuples-only --command="SELECT DISTINCT datname FROM pg_stat_activity WHERE usename = 'harrier'"`,
    );
    expect(connected).toBe('harrier_restored');
  });
});
