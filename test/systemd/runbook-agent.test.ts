import { afterAll, describe, expect, test } from 'vitest';
import { Operator } from '../support/operator.ts';
import { Runbook } from '../support/runbook.ts';
import { until } from '../support/wait.ts';

// Pages of docs/operations: their commands are run as they stand there, on a host with small disks.
const STEP_MS = 600_000;
const MIB = 1024 * 1024;
const DATA = '/var/lib/harrier-agent';
const CONTROL_PLANE = '/var/lib/harrier-control-plane';
/** Half of what an agent wants free on its disk by default: that has to fit on a disk that a test can fill. */
const MIN_FREE = `HARRIER_AGENT_MIN_FREE_BYTES=${64 * MIB}`;
/** More than it takes until something is printed, and until the log tells of the same cause again. */
const REFUSED_MS = 240_000;
/** Of the control plane, in bytes, at first. */
const VOLUME = 400 * MIB;
const PSQL = `runuser -u harrier -- psql --host=${CONTROL_PLANE}/postgres --username=harrier postgres`;

const operator = await Operator.boot({
  [DATA]: { kind: 'ext4', bytes: 400 * MIB },
  [CONTROL_PLANE]: { kind: 'xfs', bytes: VOLUME },
});
afterAll(() => operator.stop());
await operator.installAgent();
await operator.startOtherAgent();

const ENDLESS = 'import time\ndef handler(input):\n    while True: time.sleep(1)\n';
const SOON = 'def handler(input): return {}\n';
/** Prints what no compression makes smaller, later than a disk is full: a few commands take long on a busy machine. */
const PRINTING = `import base64, os, time
def handler(input):
    time.sleep(60)
    print(base64.b64encode(os.urandom(2_250_000)).decode())
    return {}
`;

/** Has something run on the agent of the host, and not on the other one. */
async function runOnHost(fields: object = {}): Promise<string> {
  await operator.run('harrier agents drain gpu-8');
  // The steps of a page may take longer than the minute of the default class.
  const id = await operator.start(ENDLESS, { taskClass: 'cpu_long', ...fields });
  await operator.untilExecution(id, 'RUNNING');
  await operator.run('harrier agents resume gpu-8');
  expect((await operator.execution(id)).agentId).toBe(await idOf('gpu-7'));
  return id;
}

async function idOf(name: string): Promise<string> {
  return (await operator.run(`harrier agents get ${name} --json | jq -r .id`)).trim();
}

/** The page by which both were installed; the test at the end of this file removes and installs as it says. */
describe('install.md', () => {
  test('has these steps', () => {
    expect(new Runbook('install').steps).toEqual(['The control plane', 'An agent', 'Removing an agent']);
  });

  test('sets what it is told to', async () => {
    const { labels } = JSON.parse(await operator.run('harrier agents get gpu-7 --json'));
    expect(labels).toMatchObject({ zone: 'eu', gpu: 'h200' });
  });
});

describe('drain.md', () => {
  const page = new Runbook('drain');

  test('has these steps', () => {
    expect(page.steps).toEqual([
      '1. See who takes the work',
      '2. Drain',
      '3. Wait until nothing runs',
      '4. Stop, and do what is to be done',
      '5. Take it back',
    ]);
  });

  test('takes the host out while others go on, and back', { timeout: STEP_MS }, async () => {
    const running = await runOnHost();
    const [look] = page.blocks('1. See who takes the work', 1);
    expect(await operator.run(look)).toMatch(/gpu-8\tONLINE[\s\S]*environments\t.*inline/);
    const [drain] = page.blocks('2. Drain', 1);
    expect(await operator.run(drain)).toMatch(/state\tDRAINING \(drain requested\)[\s\S]*executions\t1 of /);
    const here = await operator.start(SOON, { agentSelector: 'only=here' });
    expect(await operator.run(`harrier executions get ${here}`)).toContain('draining');
    await operator.run(`harrier executions cancel ${here}`);
    const elsewhere = await operator.start(SOON);
    await operator.untilExecution(elsewhere, 'SUCCEEDED');
    expect((await operator.execution(elsewhere)).agentId).toBe(await idOf('gpu-8'));

    const [wait, holdUp] = page.blocks('3. Wait until nothing runs', 2);
    expect(await operator.run(holdUp)).toMatch(new RegExp(`^${running}\t-\t\\d{4}-.*Z\n$`));
    await operator.run(`harrier executions cancel ${running}`);
    await operator.run(wait);
    expect(await operator.run(holdUp)).toBe('');
    const own = async () => (await operator.host.processes()).filter((process) => process.startsWith('harrier-agent '));
    expect(await own()).not.toEqual([]);
    const [stop] = page.blocks('4. Stop, and do what is to be done', 2);
    await operator.run(stop);
    expect(await own()).toEqual([]);
    const [back] = page.blocks('5. Take it back', 1);
    await operator.run(back);
    await operator.untilAgent('gpu-7', 'ONLINE');
    expect(await operator.host.property('harrier-launcher', 'ActiveState')).toBe('active');
  });

  test('boots the host, which stays out until it is taken back', { timeout: STEP_MS }, async () => {
    const [drain] = page.blocks('2. Drain', 1);
    const [wait] = page.blocks('3. Wait until nothing runs', 2);
    const [, boot] = page.blocks('4. Stop, and do what is to be done', 2);
    const [back] = page.blocks('5. Take it back', 1);
    await operator.run(drain);
    await operator.run(wait);
    // All of it but the kernel, which is that of this machine.
    await operator.reboot(boot);
    await operator.untilAgent('gpu-7', 'DRAINING');
    await operator.run(back);
    await operator.untilAgent('gpu-7', 'ONLINE');
    const here = await operator.start(SOON);
    await operator.untilExecution(here, 'SUCCEEDED');
    expect((await operator.execution(here)).agentId).toBe(await idOf('gpu-7'));
    // Its unit was of the former boot only.
    await operator.startOtherAgent();
  });
});

describe('lost-agent.md', () => {
  const page = new Runbook('lost-agent');
  const [look] = page.blocks('What happens without you', 1);
  const [status = '', journal = ''] = page.blocks('One agent', 1)[0].trim().split('\n');
  const [work] = page.blocks('What became of its work', 1);
  const [again] = page.blocks('Have it join anew', 1);
  const [remove] = page.blocks('It does not come back', 1);

  test('has these steps', () => {
    expect(page.steps).toEqual([
      'What happens without you',
      'One agent',
      'What became of its work',
      'Have it join anew',
      'It does not come back',
    ]);
  });

  test('a setting that is wrong is named, and the agent comes back when it is mended', {
    timeout: STEP_MS,
  }, async () => {
    await operator.host.shell(
      `echo HARRIER_AGENT_SLOTS=many >> /etc/harrier/agent.env; systemctl restart harrier-agent; true`,
    );
    expect(await operator.try(status)).toMatchObject({
      code: 1,
      stdout: expect.stringContaining(': failed; exit-code 78'),
    });
    expect(await operator.run(journal)).toMatch(/HARRIER_AGENT_SLOTS must be .* not "many"/);
    await operator.host.shell(`sed -i /SLOTS/d /etc/harrier/agent.env; systemctl restart harrier-agent`);
    await operator.untilAgent('gpu-7', 'ONLINE');
    expect(await operator.run(status)).toContain(': active; Linked to the control plane as agent ');
  });

  test('what a host had that went runs elsewhere or has failed, and the host joins anew', {
    timeout: STEP_MS,
  }, async () => {
    const once = await runOnHost({ retryPolicy: { maxAttempts: 1 } });
    const twice = await runOnHost({ retryPolicy: { maxAttempts: 2 } });
    // As when it loses its power.
    await operator.host.shell(`
      systemctl kill --kill-whom=all --signal=KILL harrier-launcher.service harrier-agent.service 2>/dev/null
      systemctl stop harrier-agent.service harrier-launcher.service`);
    await operator.untilAgent('gpu-7', 'OFFLINE');
    expect(await operator.run(look)).toMatch(/gpu-7\tOFFLINE/);
    expect(await operator.try(status)).toMatchObject({
      code: 1,
      stdout: expect.stringMatching(/: (inactive|failed); (?!Linked)/),
    });
    await operator.untilExecution(once, 'FAILED');
    await until('another attempt', async () => {
      const { state, attempt, agentId } = await operator.execution(twice);
      return state === 'RUNNING' && attempt === 2 && agentId === (await idOf('gpu-8'));
    });
    expect(await operator.run(work)).toMatch(new RegExp(`^${once}\tFAILED.*AGENT_LOST`, 'm'));
    await operator.run(`harrier executions cancel ${twice}`);

    const former = await idOf('gpu-7');
    await operator.run(again);
    await operator.untilAgent('gpu-7', 'ONLINE');
    expect(await idOf('gpu-7')).not.toBe(former);
  });

  test('one that was removed is refused, also when it is found again', { timeout: STEP_MS }, async () => {
    await operator.run(remove);
    await until('the agent to give up', async () =>
      (await operator.try(status)).stdout.includes(': failed; exit-code 77'),
    );
    expect(await operator.run(journal)).toContain('has deleted this agent');
    await operator.host.shell('systemctl restart harrier-agent; true');
    await until('the agent to be refused', async () =>
      (await operator.run(journal)).includes('is not known by this key'),
    );
    expect((await operator.try(status)).stdout).toContain(': failed; exit-code 77');
    // Where it is listed no more, the first of the commands says so, and the others are what is needed.
    const [listed, ...others] = again.split('\n');
    expect(await operator.try(listed ?? '')).toMatchObject({
      stderr: expect.stringContaining('there is no agent "gpu-7"'),
    });
    await operator.run(others.join('\n'));
    await operator.untilAgent('gpu-7', 'ONLINE');
  });
});

describe('full-disk.md', () => {
  const page = new Runbook('full-disk');

  test('has these steps', () => {
    expect(page.steps).toEqual(['On an agent', 'On a control plane', 'A larger disk']);
  });

  test('tells what fills the disk of an agent, which goes on once there is room', { timeout: STEP_MS }, async () => {
    await operator.host.shell(`echo ${MIN_FREE} >> /etc/harrier/agent.env && systemctl restart harrier-agent`);
    await operator.untilAgent('gpu-7', 'ONLINE');
    const [look] = page.blocks('On an agent', 1);
    const building = `harrier agents drain gpu-8 >/dev/null
      harrier exec --requirement anything -c '${SOON}' 2>&1 || true
      harrier agents resume gpu-8 >/dev/null`;
    const fill = `dd if=/dev/zero of=${DATA}/ballast bs=1M status=none; test "$(df --output=avail ${DATA} | tail -n 1)" -eq 0`;
    await operator.host.shell(fill);
    expect(await operator.run(building)).toContain('gpu-7: no room for environments: 0 MiB free of 64 MiB needed');
    // The agent looks at its disks from time to time.
    const said = await until('the agent to tell that its disk is full', async () => {
      const text = await operator.run(look);
      return /disks\t.*\/var\/lib\/harrier-agent 0 B free of /.test(text) && text;
    });
    expect(said).toMatch(/ 100% \/var\/lib\/harrier-agent\n/);
    expect(said).toMatch(/M\t\/var\/lib\/harrier-agent\/ballast\n/);
    for (const part of ['lib/harrier-agent/spool', 'lib/harrier-agent/environments', 'log/harrier/agent'])
      expect(said).toContain(`/var/${part}\n`);
    expect(said).toMatch(/\/opt\/harrier\/agent\/0\.1\.0-[0-9a-f]{12}\n/);

    const running = await runOnHost();
    await operator.host.shell(`rm ${DATA}/ballast`);
    expect(await operator.run(building)).not.toContain('no room');
    expect(await operator.execution(running)).toMatchObject({ state: 'RUNNING', attempt: 1 });
    await operator.run(`harrier executions cancel ${running}`);

    await operator.host.shell(fill);
    await operator.host.shell('systemctl restart harrier-agent || true');
    expect(await operator.host.property('harrier-agent', 'ActiveState')).not.toBe('active');
    await operator.host.shell(`rm ${DATA}/ballast`);
    await operator.untilAgent('gpu-7', 'ONLINE');
  });

  /** Has a database that has no room refuse what an execution has printed. @returns the execution */
  async function refused(): Promise<string> {
    const before = await refusals();
    // A segment of its own for what is written meanwhile: PostgreSQL ends when it cannot make another one.
    await operator.host.shell(`${PSQL} --quiet --command=CHECKPOINT --command='SELECT pg_switch_wal()'`);
    // A full database may refuse what is new, too.
    const waiting = await operator.start(PRINTING, { taskClass: 'cpu_long' });
    await operator.untilExecution(waiting, 'RUNNING');
    // Quickly, since it prints within a minute: dd writes only what is left then.
    await operator.host.shell(`
      avail() { df --output=avail ${CONTROL_PLANE} | tail -n 1; }
      fallocate --length $(($(avail) - 4096))K ${CONTROL_PLANE}/ballast || exit
      dd if=/dev/zero of=${CONTROL_PLANE}/ballast bs=64K oflag=append conv=notrunc status=none
      test "$(avail)" -lt 1024`);
    await until('the database to refuse what it has printed', async () => (await refusals()) > before, {
      deadlineMs: REFUSED_MS,
    });
    expect(await operator.execution(waiting)).toMatchObject({ state: 'RUNNING' });
    return waiting;
  }

  async function refusals(): Promise<number> {
    const said = await operator.host.shell('journalctl --unit=harrier-control-plane --output=cat');
    return said.match(/.*No space left on device.*log bytes could not be stored/g)?.length ?? 0;
  }

  test('a database whose file system is made larger stores what has waited, without a restart', {
    timeout: STEP_MS,
  }, async () => {
    const [find, enlarge] = page.blocks('A larger disk', 2);
    const controlPlane = await operator.host.property('harrier-control-plane', 'MainPID');
    const waiting = await refused();
    expect(await operator.run(find)).toMatch(/\n\/var\/lib\/harrier-control-plane +\/dev\/loop\d+ +xfs /);
    operator.host.enlargeVolume(CONTROL_PLANE, 2 * VOLUME);
    expect(await operator.run(enlarge)).not.toMatch(/ 100% /);
    await operator.untilExecution(waiting, 'SUCCEEDED');
    expect(await operator.host.property('harrier-control-plane', 'MainPID')).toBe(controlPlane);
    await operator.host.shell(`rm ${CONTROL_PLANE}/ballast`);
  });

  test('gives a database room, which then stores what has waited, and keeps less', { timeout: STEP_MS }, async () => {
    const [look, settings, largest] = page.blocks('On a control plane', 3);
    const waiting = await refused();
    const said = await operator.run(look);
    expect(said).toMatch(/ 100% \/var\/lib\/harrier-control-plane\n/);
    expect(said).toMatch(/M\t\/var\/lib\/harrier-control-plane\/ballast\n/);
    expect(said).toContain('/var/lib/harrier-control-plane/postgres/pg_wal\n');
    await operator.host.shell(`rm ${CONTROL_PLANE}/ballast`);
    await operator.untilExecution(waiting, 'SUCCEEDED');

    await operator.run(settings);
    await operator.untilAgent('gpu-7', 'ONLINE');
    const environment = await operator.host.shell(
      'tr "\\0" "\\n" < /proc/$(systemctl show -P MainPID harrier-control-plane)/environ',
    );
    expect(environment).toMatch(/^HARRIER_RETENTION_BYTES=10737418240$/m);
    const table = await operator.host.shell(`${PSQL} --tuples-only <<'END'\n${largest}\nEND`);
    expect(table).toMatch(/^ *log_chunks *\| \d+ .B$/m);
    await operator.host.shell(`${PSQL} --command='VACUUM (FULL, ANALYZE) log_chunks'`);
  });
});

test('install.md removes an agent, and installs one by a line that asks for the token at the terminal', {
  timeout: STEP_MS,
}, async () => {
  const page = new Runbook('install');
  const [remove] = page.blocks('Removing an agent', 1);
  expect(await operator.run(remove.replaceAll('NAME', 'gpu-7'))).toContain(
    `${DATA} is a file system of its own, and is left empty`,
  );
  expect(await operator.try('harrier agents get gpu-7')).toMatchObject({
    stderr: expect.stringContaining('there is no agent "gpu-7"'),
  });
  expect(await operator.host.shell(`find ${DATA} -mindepth 1; ls -d /opt/harrier/agent 2>/dev/null || true`)).toBe('');

  const [make = '', install = ''] = page.blocks('An agent', 2)[0].trim().split('\n');
  const token = (await operator.run(make)).trim();
  const seen = await operator.runAtTerminal(install, 'Join token (harrier agents token): ', token);
  expect(seen).toContain(': active; Linked to the control plane as agent ');
  expect(seen, 'who looks at the terminal does not see the token').not.toContain(token);
  await operator.untilAgent('gpu-7', 'ONLINE');
});
