import { afterAll, describe, expect, test } from 'vitest';
import { GpuHost } from '../support/gpu-host.ts';
import { Operator } from '../support/operator.ts';
import { Releases } from '../support/releases.ts';
import { Runbook } from '../support/runbook.ts';
import { until } from '../support/wait.ts';

// Pages of docs/operations: their commands are run as they stand there, on a host whose control plane was installed from its sources,
// as the page about installing says.
const STEP_MS = 600_000;
/** The agent asks the journal once a minute. */
const JOURNAL_MS = 240_000;
const CTL = '/opt/harrier/bin/harrier-agent-ctl';

const releases = new Releases();
const cards = new GpuHost();
const { bin, devices, binds } = cards.elsewhere;
const operator = await Operator.bootWith(releases, binds);
afterAll(() => operator.stop());
// What the page about GPUs has on its host.
await operator.host.shell(`
  printf '#!/bin/sh\\nexec ${bin}/nvidia-smi "$@"\\n' > /usr/local/bin/nvidia-smi && chmod 0755 /usr/local/bin/nvidia-smi
  printf '[Service]\\nExecStart=/bin/sleep infinity\\n' > /etc/systemd/system/nvidia-persistenced.service
  systemctl daemon-reload && systemctl start nvidia-persistenced`);
await operator.installAgent();
await operator.host.shell(`echo HARRIER_AGENT_GPU_DEV_ROOT=${devices} >> /etc/harrier/agent.env`);
await operator.host.shell('systemctl restart harrier-agent');
await operator.untilAgent('gpu-7', 'ONLINE');

const ENDLESS = 'import time\ndef handler(input):\n    while True: time.sleep(1)\n';

async function running(fields: object = {}): Promise<string> {
  const id = await operator.start(ENDLESS, fields);
  await operator.untilExecution(id, 'RUNNING');
  return id;
}

describe('upgrade.md', () => {
  const page = new Runbook('upgrade');
  const [controlPlane] = page.blocks('The control plane', 1);
  const [upgrade, fleet, back] = page.blocks('An agent', 3);
  const former = / --version (\S+)/.exec(back)?.[1] ?? '';
  const next = / checkout v(\S+) /.exec(controlPlane)?.[1] ?? '';
  let id = '';

  test('has these steps', () => {
    expect(page.steps).toEqual(['The control plane', 'An agent']);
  });

  test('brings another control plane, and agents for its hosts, while what runs goes on', {
    timeout: STEP_MS,
  }, async () => {
    id = await running({ taskClass: 'cpu_long' });
    releases.release(next);
    await operator.run(controlPlane);
    await operator.untilAgent('gpu-7', 'ONLINE');
    expect(await operator.host.shell('ls /opt/harrier/control-plane/bundles')).toContain(`harrier-agent-${next}-linux`);
    expect(await operator.execution(id)).toMatchObject({ state: 'RUNNING', attempt: 1 });
  });

  test('brings another agent, the former one, and those of a fleet, while what runs goes on', {
    timeout: STEP_MS,
  }, async () => {
    expect(await operator.run(`sudo ${CTL} status`)).toContain(`${former}: active; Linked`);
    const first = await operator.run(upgrade);
    expect(first).toContain(`${next}: active; Linked`);
    expect(first).toContain(`${next} is installed already`);
    expect(await operator.run(back)).toContain(`${former}: active; Linked`);
    expect(await operator.run(fleet)).toMatch(
      new RegExp(`-> ${next}-[\\s\\S]*(${next} is installed already[\\s\\S]*){2}`),
    );
    expect(await operator.execution(id)).toMatchObject({ state: 'RUNNING', attempt: 1 });
    await operator.run(`harrier executions cancel ${id}`);
  });
});

describe('sick-gpu.md', () => {
  const page = new Runbook('sick-gpu');
  const [left = '', lost = '', sick = ''] = cards.uuids;
  const of = (uuid: string, script: string): string => script.replaceAll('GPU-…', uuid);
  const [look] = page.blocks('1. See why', 2);

  async function untilCard(uuid: string, state: string, deadlineMs?: number): Promise<void> {
    await until(
      `card ${uuid} to be ${state}`,
      async () =>
        (await operator.try(look)).stdout.split('\n').some((line) => line.includes(uuid) && line.includes(state)),
      deadlineMs === undefined ? {} : { deadlineMs },
    );
  }

  /** Has the journal take a record as the kernel's. What is open for it must not be there when the host shuts down, which would write to it. */
  async function logAsKernel(text: string): Promise<void> {
    await operator.host.shell(`
      set -e
      mkfifo --mode=0600 /dev/kmsg
      exec 8<>/dev/kmsg
      systemctl restart systemd-journald
      at=$(cut -d ' ' -f 1 /proc/uptime | tr -d .)0000
      until journalctl -k -q -g 'NVRM: Xid' >/dev/null; do
        printf '3,1,%s,-;%s\n' "$at" '${text}' >&8
        sleep 1
      done
      rm /dev/kmsg`);
  }

  test('has these steps', () => {
    expect(page.steps).toEqual(['1. See why', '3. Reset one card', '4. Boot the host', '5. Take the card back']);
  });

  test('tells why a card is out of use, resets it, and takes it back', { timeout: STEP_MS }, async () => {
    const [, onHost] = page.blocks('1. See why', 2);
    const [reset] = page.blocks('3. Reset one card', 1);
    const [clear] = page.blocks('5. Take the card back', 1);
    await untilCard(left, 'FREE');
    const id = await running({ taskClass: 'gpu', limits: { gpus: cards.uuids.length } });
    cards.dirty(left);
    await operator.run(`harrier executions cancel ${id}`);
    await untilCard(left, 'QUARANTINED');
    expect(await operator.run(look)).toMatch(
      new RegExp(`${left}.*of execution ${id} has left something on it: process`),
    );
    expect(await operator.run('harrier agents ls')).toContain('1 quarantined');
    // journalctl ends so when it has found nothing.
    expect(await operator.try(of(left, onHost))).toMatchObject({ code: 1, stdout: expect.stringContaining(left) });

    const still = await operator.try(of(left, clear));
    expect(still).toMatchObject({ code: 2, stderr: expect.stringContaining(`${left} stays quarantined`) });
    expect(await operator.run(of(left, reset))).toContain(`${left} was successfully reset`);
    expect(await operator.host.property('nvidia-persistenced', 'ActiveState')).toBe('active');
    expect(await operator.run(of(left, clear))).toBe(`${left} FREE\n`);
  });

  test('hears of an error of the driver by the journal', { timeout: STEP_MS }, async () => {
    const [, onHost] = page.blocks('1. See why', 2);
    const [clear] = page.blocks('5. Take the card back', 1);
    await untilCard(sick, 'FREE');
    await logAsKernel(`NVRM: Xid (PCI:0000:0${cards.uuids.indexOf(sick)}:00): 79, GPU has fallen off the bus.`);
    expect(await operator.run(of(sick, onHost))).toContain('kernel: NVRM: Xid');
    await untilCard(sick, 'QUARANTINED', JOURNAL_MS);
    expect(await operator.run(look)).toMatch(new RegExp(`${sick}.*Xid 79: the GPU has fallen off the bus`));
    expect(await operator.run(of(sick, clear))).toBe(`${sick} FREE\n`);
  });

  test('drains a host, boots it, and has its cards again', { timeout: STEP_MS }, async () => {
    const [boot, resume] = page.blocks('4. Boot the host', 2);
    cards.lose(lost);
    await untilCard(lost, 'QUARANTINED');
    expect(await operator.run(look)).toMatch(new RegExp(`${lost}.*the driver does not list it any more`));
    cards.lose(lost, false);
    // The kernel is that of this machine, and is not booted with it: the agent knows the boot by the id that systemd-nspawn gives it.
    await operator.reboot(boot);
    await operator.untilAgent('gpu-7', 'DRAINING');
    await operator.run(resume);
    await operator.untilAgent('gpu-7', 'ONLINE');
    await untilCard(lost, 'FREE');
  });
});
