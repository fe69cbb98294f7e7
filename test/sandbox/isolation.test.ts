import { createServer } from 'node:net';
import { join } from 'node:path';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { Agent } from '../support/agent.ts';
import { execute } from '../support/executions.ts';
import { code, command, moduleCall } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { until, within } from '../support/wait.ts';

/** A mount namespace in which the program cannot be executed. */
const WITHOUT_BUBBLEWRAP = [
  ...['unshare', process.getuid?.() === 0 ? '-m' : '-Urm', 'sh', '-c'],
  ...['mount --bind /dev/null "$(command -v bwrap)" && exec "$@"', 'sh'],
];

const stack = await startStack({ agents: [{ env: { SECRET_OF_THE_HOST: 'swordfish' } }] });
const { executions } = stack;
const agent = stack.agents[0];

/** Runs code that answers `{"seen": …}`. */
async function seen(expression: string, imports = 'os'): Promise<unknown> {
  const source = `import ${imports}\ndef handler(input):\n    return {"seen": ${expression}}\n`;
  const execution = await execute(executions, code(source));
  expect(execution.state, execution.error?.message).toBe(State.SUCCEEDED);
  return JSON.parse(execution.outputJson).seen;
}

/** What happens when code does something that it must not be able to do. */
async function failure(statement: string, imports = 'os'): Promise<string> {
  const source = `import ${imports}\ndef handler(input):\n    ${statement}\n    return {"done": True}\n`;
  const execution = await execute(executions, code(source));
  expect(execution.outputJson).toBe('');
  return execution.error?.message ?? '';
}

test('the environment has nothing of the agent', async () => {
  const variables = (await seen('dict(os.environ)')) as Record<string, string>;
  expect(JSON.stringify(variables)).not.toContain('swordfish');
  expect(Object.keys(variables).filter((name) => /HARRIER|TOKEN|KEY|SECRET/.test(name))).toEqual([]);
  expect(variables.HOME).not.toBe('/root');
  const { stdoutTail } = await execute(executions, { ...command('env'), env: { GREETING: 'hi' } });
  expect(stdoutTail).toContain('GREETING=hi\n');
  expect(stdoutTail).not.toMatch(/swordfish|HARRIER_/);
});

test('there is no network, not even to the host itself', async () => {
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    const { port } = server.address() as { port: number };
    const connect = `socket.create_connection(("127.0.0.1", ${port}), timeout=5)`;
    expect(await failure(connect, 'socket')).toMatch(/ConnectionRefusedError|OSError|PermissionError/);
    expect(
      await seen('sorted(os.listdir("/sys/class/net")) if os.path.exists("/sys/class/net") else []'),
    ).not.toContain('eth0');
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
});

test("the agent's key, the directories of the host's users and the host's processes cannot be seen", async () => {
  const dataDirectory = agent?.dataDirectory ?? '';
  expect(await seen(`os.path.exists(${JSON.stringify(dataDirectory)})`)).toBe(false);
  expect(await failure(`open(${JSON.stringify(join(dataDirectory, 'identity.json'))}).read()`)).toMatch(
    /FileNotFoundError/,
  );
  expect(await failure('os.listdir("/root")')).toMatch(/FileNotFoundError|PermissionError/);
  expect(await failure('open("/etc/shadow").read()')).toMatch(/FileNotFoundError|PermissionError/);
  expect(await seen('os.getpid() < 5 and sorted(int(p) for p in os.listdir("/proc") if p.isdigit())')).toEqual([1]);
});

test('a file of the host cannot be written, and `/tmp` is private to the call', async () => {
  expect(await failure('open("/usr/evil", "w")')).toMatch(/OSError|PermissionError/);
  expect(await failure('open("/evil", "w")')).toMatch(/OSError|PermissionError/);
  expect(await seen('open("/tmp/mark", "w").write("x")')).toBe(1);
  expect(await seen('os.listdir("/tmp")')).toEqual([]);
});

test('nothing of one call is there in the next', async () => {
  const source = `
import builtins, os
def handler(input):
    before = getattr(builtins, "left", None), os.environ.get("LEFT")
    builtins.left = os.environ["LEFT"] = "behind"
    return {"before": before}
`;
  await stack.modules.createModule({ module: { name: 'marks', version: '1.0.0', code: source } });
  await stack.modules.createModule({ module: { name: 'marks-reused', version: '1.0.0', code: source, reuse: true } });
  const [one, two] = [await execute(executions, moduleCall('marks')), await execute(executions, moduleCall('marks'))];
  expect([one.outputJson, two.outputJson]).toEqual(Array(2).fill('{"before":[null,null]}'));
  // A module that asks for it keeps its interpreter; no other module ever sees that one.
  await execute(executions, moduleCall('marks-reused'));
  expect((await execute(executions, moduleCall('marks-reused'))).outputJson).toContain('behind');
  expect((await execute(executions, moduleCall('marks'))).outputJson).toBe('{"before":[null,null]}');
});

test('privileges cannot be had', async () => {
  expect(await failure('os.setuid(0)')).toMatch(/PermissionError|OSError/);
  expect(
    await failure(
      'os.unshare(os.CLONE_NEWUSER) if hasattr(os, "unshare") else (_ for _ in ()).throw(PermissionError())',
    ),
  ).toMatch(/PermissionError|OSError/);
  expect(await execute(executions, command('unshare', '-Ur', 'true'))).toMatchObject({ state: State.FAILED });
  expect(await execute(executions, command('mount', '-t', 'tmpfs', 'x', '/mnt'))).toMatchObject({
    state: State.FAILED,
  });
  const status = (await execute(executions, command('cat', '/proc/self/status'))).stdoutTail;
  expect(status).toMatch(/CapEff:\t0000000000000000/);
  expect(status).toMatch(/NoNewPrivs:\t1/);
  expect(status).toMatch(/Seccomp:\t2/);
});

test('a process that a call leaves behind ends with the call', async () => {
  const source = `
import subprocess
def handler(input):
    for command in (["sleep", "987653.5"], ["sh", "-c", "setsid sleep 987653.5 & exec sleep 987653.5"]):
        subprocess.Popen(command, start_new_session=True)
    return {}
`;
  expect(await execute(executions, code(source))).toMatchObject({ state: State.SUCCEEDED });
  const left = () => agent?.launcherProcesses().filter(({ command: line }) => line.includes('987653.5')) ?? [];
  await until('what the call has started to end', () => left().length === 0, { seen: left });
});

test('a sandbox that cannot be built stops the agent with the reason, unless it is allowed to go without', async () => {
  const options = {
    name: 'unsandboxed',
    serverUrl: stack.controlPlane.url,
    joinToken: await stack.controlPlane.joinToken(),
    wrapper: WITHOUT_BUBBLEWRAP,
  };
  const refused = Agent.start(options);
  expect(await within('the agent to give up', refused.program.exited)).toMatchObject({ code: 1 });
  expect(refused.program.stderr).toMatch(/bwrap|bubblewrap/);

  const flags = ['--allow-unsandboxed', '--label', 'sandbox=none'];
  const allowed = await stack.addAgent({ ...options, joinToken: await stack.controlPlane.joinToken(), flags });
  const { agents } = await stack.clients.agents.listAgents({ labelSelector: 'sandbox=none' });
  expect(agents).toMatchObject([{ name: 'unsandboxed', isolation: { level: 1 } }]);
  expect(allowed.program.stdout).toContain('without a sandbox');
  const request = { ...code('def handler(input):\n    return {"ran": True}\n'), agentSelector: 'sandbox=none' };
  expect(await execute(executions, request)).toMatchObject({ state: State.SUCCEEDED, outputJson: '{"ran":true}' });
  await allowed.remove();
});
