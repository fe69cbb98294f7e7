import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { VERSION } from '@harrier/shared';
import { Agent_State as AgentState, Isolation_Level as Isolation } from '@harrier/shared/gen/agent';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { afterAll, expect, test } from 'vitest';
import { buildBundle } from '../../deploy/agent/bundle.ts';
import type { Architecture } from '../../deploy/agent/platform-files.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { create, execute, finished, get, storedLog, untilPrinted } from '../support/executions.ts';
import { code } from '../support/requests.ts';
import { SystemdHost } from '../support/systemd-host.ts';
import { ticker, tickerText } from '../support/ticker.ts';
import { until } from '../support/wait.ts';
import { directory, REPOSITORY } from '../support/workspace.ts';

/** Versions of the agent that differ from this one in what they are named after. */
const NEWER = '99.0.1';
const BROKEN = '99.0.2';
const CTL = '/opt/harrier/bin/harrier-agent-ctl';
/** More than a restart takes on a busy machine; what needs longer hangs. */
const INSTALL_MS = 180_000;
const WIDTH = 40;

const bundles = directory('bundles');
const [host, controlPlane] = await Promise.all([
  SystemdHost.boot(),
  ControlPlane.start({ env: { HARRIER_AGENT_BUNDLES: bundles } }),
  bundle(VERSION),
  bundle(NEWER, (root) => change(join(root, 'agent/runtime/options.py'), 'VERSION = "', 'VERSION = "99.')),
  bundle(BROKEN, (root) =>
    writeFileSync(join(root, 'agent/src/main.ts'), "throw new Error('this agent is broken');\n"),
  ),
]);
afterAll(async () => {
  await host.stop();
  await controlPlane.stop();
});
const { executions, agents } = controlPlane.clients;
const filesBefore = await host.files();

async function bundle(version: string, alter: (root: string) => void = () => {}): Promise<string> {
  const architecture = process.arch as Architecture;
  const { path } = await buildBundle({
    ...{ root: REPOSITORY, architecture, output: bundles, compression: 1 },
    change: (root) => {
      change(join(root, 'shared/package.json'), `"version": "${VERSION}"`, `"version": "${version}"`);
      alter(root);
    },
  });
  return path;
}

function change(path: string, before: string, after: string): void {
  const text = readFileSync(path, 'utf8');
  if (!text.includes(before)) throw new Error(`${path} does not contain ${before}`);
  writeFileSync(path, text.replace(before, after));
}

async function install(
  options: { token?: string } = {},
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const flags = '--set HARRIER_AGENT_METRICS_LISTEN=127.0.0.1:0 --set HARRIER_AGENT_NAME=systemd';
  return await host.run(['sh', '-c', `curl -fsSL ${controlPlane.url}/install.sh | sh -s -- ${flags}`], {
    deadlineMs: INSTALL_MS,
    env: options.token === undefined ? {} : { HARRIER_JOIN_TOKEN: options.token },
  });
}

async function agent() {
  const found = (await agents.listAgents({})).agents;
  expect(found).toHaveLength(1);
  if (found[0] === undefined) throw new Error('there is no agent');
  return found[0];
}

async function untilOnline(): Promise<void> {
  await until('the agent to be online', async () => (await agent()).state === AgentState.ONLINE);
}

const mainPid = async (unit: string): Promise<string> => await host.property(unit, 'MainPID');

/** Starts a job that goes on for ever, does something meanwhile, and expects the job not to have noticed. */
async function whileRunning(act: () => Promise<void>): Promise<void> {
  const id = await create(executions, ticker({ lines: 1_000_000, width: WIDTH, pause: 0.05 }));
  await untilPrinted(executions, id, 'line 3 ');
  await act();
  await untilPrinted(executions, id, `line ${(await printed(id)).length + 10} `);
  expect(await get(executions, id)).toMatchObject({ state: State.RUNNING, attempt: 1 });
  await executions.cancelExecution({ id });
  expect(await finished(executions, id)).toMatchObject({ state: State.CANCELLED, attempt: 1 });
  const lines = await printed(id);
  expect(lines.join('')).toBe(tickerText({ lines: lines.length, width: WIDTH }));
}

/** The whole lines that are stored. */
async function printed(id: string): Promise<string[]> {
  const text = (await storedLog(executions, id)).stdout.toString();
  return text.match(/.*\n/g) ?? [];
}

test('an agent that was changed on its way is not installed', { timeout: INSTALL_MS }, async () => {
  await host.shell(`curl -fsSL ${controlPlane.url}/install.sh -o /root/install.sh`);
  const path = join(bundles, `harrier-agent-${VERSION}-linux-${process.arch}.tar.gz`);
  const whole = readFileSync(path);
  truncateSync(path, whole.length - 1);
  const token = await controlPlane.joinToken();
  const { code: exit, stderr } = await host.run(['sh', '/root/install.sh'], { env: { HARRIER_JOIN_TOKEN: token } });
  writeFileSync(path, whole);
  expect(stderr).toMatch(/is not what the control plane announced: its SHA-256 is [0-9a-f]{64}, not [0-9a-f]{64}/);
  expect(exit).toBe(1);
  expect(await host.shell('ls -A /opt/harrier/agent /etc/harrier 2>/dev/null || true')).toBe('/opt/harrier/agent:');
  await host.shell('rm /root/install.sh');
});

test('one line installs an agent that joins by its token and runs code in a sandbox', {
  timeout: INSTALL_MS,
}, async () => {
  const { code: exit, stdout, stderr } = await install({ token: await controlPlane.joinToken() });
  expect(`${stdout}${exit === 0 ? '' : stderr}`).toContain(
    `harrier-agent: ${VERSION}: active; Linked to the control plane`,
  );
  expect(await agent()).toMatchObject({ name: 'systemd', state: AgentState.ONLINE, version: VERSION });
  expect((await agent()).isolation?.level).toBe(Isolation.SANDBOX);
  // Nothing that was compiled on the host that it was packed on.
  expect(await host.shell('cd /opt/harrier/agent/current/node_modules && find . -name "*.node"')).toMatch(
    /^(\.\/bufferutil\/prebuilds\/linux-\w+\/bufferutil\.node)?$/,
  );
  expect(await host.shell('stat -c %a:%U /etc/harrier/agent.env')).toBe('600:root');
  expect(await host.shell('cat /etc/harrier/agent.env')).not.toContain('JOIN_TOKEN');
  expect(await host.shell('stat -c %U /proc/$(systemctl show -P MainPID harrier-launcher)')).toBe('harrier-agent');
  const ran = await execute(
    executions,
    code('def handler(input):\n    return {"sum": sum(input["values"])}\n', { values: [1, 2] }),
  );
  expect(ran).toMatchObject({ state: State.SUCCEEDED, outputJson: '{"sum":3}' });
});

test('the units keep no system call from a sandbox that newer ones are built with', async () => {
  // openat2(2) of /, which some settings of systemd have answer that there is none.
  const opened = code(`import ctypes, os
def handler(input):
    libc = ctypes.CDLL(None, use_errno=True)
    how = (ctypes.c_uint64 * 3)(os.O_RDONLY | os.O_DIRECTORY, 0, 0)
    fd = libc.syscall(ctypes.c_long(437), ctypes.c_long(-100), b"/", how, ctypes.c_size_t(24))
    return {"error": None if fd >= 0 else os.strerror(ctypes.get_errno())}
`);
  expect(await execute(executions, opened)).toMatchObject({ state: State.SUCCEEDED, outputJson: '{"error":null}' });
});

test('installing again changes nothing', { timeout: INSTALL_MS }, async () => {
  const before = await mainPid('harrier-agent');
  expect(await install()).toMatchObject({ code: 0, stdout: expect.stringContaining('nothing has changed') });
  expect(await mainPid('harrier-agent')).toBe(before);
});

test.each([
  ['is killed', 'kill -KILL "$(systemctl show -P MainPID harrier-agent)"'],
  ['is restarted', 'systemctl restart harrier-agent'],
])('an agent that %s comes back, and what runs does not notice', { timeout: INSTALL_MS }, async (_, command) => {
  const [former, launcher] = await Promise.all([mainPid('harrier-agent'), mainPid('harrier-launcher')]);
  await whileRunning(async () => {
    await host.shell(command);
    await until('another agent', async () => !['0', former].includes(await mainPid('harrier-agent')));
  });
  expect(await mainPid('harrier-launcher')).toBe(launcher);
});

test('an agent that hangs is restarted by the watchdog, and what runs does not notice', {
  timeout: INSTALL_MS,
}, async () => {
  const dropIn = '/etc/systemd/system/harrier-agent.service.d';
  await host.shell(`mkdir ${dropIn} && printf '[Service]\\nWatchdogSec=3s\\n' > ${dropIn}/watchdog.conf`);
  await host.shell('systemctl daemon-reload && systemctl restart harrier-agent');
  await untilOnline();
  const former = await mainPid('harrier-agent');
  await whileRunning(async () => {
    await host.shell(`kill -STOP ${former}`);
    await until('another agent', async () => !['0', former].includes(await mainPid('harrier-agent')));
  });
  expect(await host.shell('journalctl --unit=harrier-agent --output=cat')).toContain('Watchdog timeout');
  await host.shell(`rm -r ${dropIn} && systemctl daemon-reload && systemctl restart harrier-agent`);
  await untilOnline();
});

test('an upgrade with a job running leaves the job alone, and brings a new launcher after it', {
  timeout: INSTALL_MS,
}, async () => {
  const launcher = await mainPid('harrier-launcher');
  await whileRunning(async () => {
    const {
      code: exit,
      stdout,
      stderr,
    } = await host.run([CTL, 'upgrade', '--version', NEWER], { deadlineMs: INSTALL_MS });
    expect(`${stdout}${exit === 0 ? '' : stderr}`).toContain(`${NEWER}: active; Linked`);
    expect((await agent()).version).toBe(NEWER);
    expect(await mainPid('harrier-launcher')).toBe(launcher);
  });
  await until('another launcher', async () => !['0', launcher].includes(await mainPid('harrier-launcher')));
  await until(
    'the launcher to be ready',
    async () => (await host.property('harrier-launcher', 'ActiveState')) === 'active',
  );
  expect(await execute(executions, code('def handler(input):\n    return {}\n'))).toMatchObject({
    state: State.SUCCEEDED,
  });
});

test('an upgrade to an agent that does not link goes back, and leaves the job alone', {
  timeout: INSTALL_MS,
}, async () => {
  const launcher = await mainPid('harrier-launcher');
  await whileRunning(async () => {
    const command = [CTL, 'upgrade', '--version', BROKEN, '--wait', '5'];
    const { code: exit, stderr } = await host.run(command, { deadlineMs: INSTALL_MS });
    expect(exit).toBe(1);
    expect(stderr).toContain('this agent is broken');
    expect(stderr).toMatch(new RegExp(`went back to ${NEWER}-[0-9a-f]{12}, which is linked again`));
  });
  expect(await mainPid('harrier-launcher')).toBe(launcher);
  expect(await host.shell('readlink /opt/harrier/agent/current')).toMatch(new RegExp(`^${NEWER}-[0-9a-f]{12}$`));
  expect(await host.shell('ls /opt/harrier/agent')).not.toContain(BROKEN);
  expect(await agent()).toMatchObject({ state: AgentState.ONLINE, version: NEWER });
});

test('status tells how the agent fares', async () => {
  const status = await host.run([CTL, 'status']);
  expect(status).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^harrier-agent: 99\.0\.1: active; Linked to /),
  });
});

test('uninstalling leaves nothing', { timeout: INSTALL_MS }, async () => {
  const { id } = await agent();
  const own = async () =>
    (await host.processes()).filter((process) => /\bbwrap\b|launcher\.py|\/opt\/harrier/.test(process));
  expect(await own()).not.toEqual([]);
  const { code: exit, stdout, stderr } = await host.run([CTL, 'uninstall'], { deadlineMs: INSTALL_MS });
  expect(`${stdout}${exit === 0 ? '' : stderr}`).toContain(`harrier agents rm ${id}`);
  expect(await host.shell('systemctl list-units --all --no-legend "harrier*"')).toBe('');
  expect(await host.shell('systemctl list-unit-files --no-legend "harrier*" || true')).toBe('');
  expect(await host.shell('getent passwd harrier-agent; getent group harrier-agent; true')).toBe('');
  expect(await own()).toEqual([]);
  // Copies that useradd and userdel make of what they change.
  const backups = /^\/etc\/(passwd|group|shadow|gshadow|subuid|subgid)-$/;
  expect((await host.files()).filter((path) => !filesBefore.includes(path) && !backups.test(path))).toEqual([]);
});
