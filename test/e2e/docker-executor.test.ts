import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { type Limits, Limits_Network as Network, Environment_Docker_Pull as Pull } from '@harrier/shared/gen/module';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { assignment, DockerAgent, pythonProgram } from '../support/docker-agent.ts';
import { buildImage, docker, PYTHON_IMAGE, startDockerEngine, stopDockerEngine } from '../support/docker-engine.ts';
import { until } from '../support/wait.ts';
import { directory } from '../support/workspace.ts';

const ANSWER = 'import json, sys; document = json.load(sys.stdin); print(json.dumps({"ok": True, "output": ';
const FOREVER = 'import sys, time; print("up", file=sys.stderr, flush=True); time.sleep(3600)';
const STUBBORN = `import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); ${FOREVER}`;

const { $typeName: _, ...LIMITS } = assignment('', {}).limits as Limits;

beforeAll(() => startDockerEngine(), 300_000);

/** Containers of an agent, also ended ones. */
function containers(agent: DockerAgent): string[] {
  const listed = docker('ps', '--all', '--quiet', '--filter', `label=harrier.agent=${agent.dataDir}`);
  return listed.split('\n').filter((id) => id !== '');
}

describe('a container that follows the protocol', () => {
  test('reads the document with input and schemas, and answers its output byte for byte', async () => {
    const agent = await DockerAgent.start();
    agent.start('e1', {
      ...pythonProgram(`${ANSWER}{"got": document}}))`),
      inputJson: Buffer.from('{"big": 12345678901234567890, "one": 1.0, "text": "ä\\u0000"}'),
      inputSchemaJson: '{"type":"object"}',
    });
    const end = await agent.end('e1');
    // Until it is stored.
    expect(agent.executor.unacknowledgedBytes).toBeGreaterThanOrEqual(end.result.length);
    agent.executor.forget({ executionId: 'e1', attempt: 1 });
    expect(agent.executor.unacknowledgedBytes).toBe(0);
    expect(end.code).toBe('');
    expect(end.result).toBe(
      '{"got": {"schema_in": {"type": "object"}, "schema_out": {}, ' +
        '"input": {"big": 12345678901234567890, "one": 1.0, "text": "\\u00e4\\u0000"}}}',
    );
    expect(end).toMatchObject({ outcome: 'succeeded', exitCode: 0, stdoutBytes: 0, stderrBytes: 0 });
    await until('the container to be removed', () => containers(agent).length === 0);
    await until('its place to be free', () => agent.budget.used === 0);
  });

  test.each([
    [
      'the error that it tells',
      'print(\'{"ok":false,"error":{"message":"no","code":"E7","details":[1]}}\')',
      'HANDLER_ERROR',
      'no',
    ],
    [
      'one of its own codes that means the same',
      'print(\'{"ok":false,"error":{"code":"INPUT_INVALID"}}\')',
      'INPUT_INVALID',
      'INPUT_INVALID',
    ],
    ['an exit code', 'import sys; sys.exit(3)', 'EXIT_NONZERO', 'exit code 3'],
    [
      'a result with a bad exit code',
      'import sys; print(\'{"ok":true,"output":{}}\'); sys.exit(4)',
      'EXIT_NONZERO',
      'exit code 4',
    ],
    ['a signal', 'import os; os.kill(os.getpid(), 11)', 'KILLED', 'SIGSEGV'],
    ['too much memory', 'x = b"x" * 500_000_000', 'OUT_OF_MEMORY', 'memory'],
    ['nothing', 'pass', 'OUTPUT_INVALID', 'nothing was written'],
    ['NaN', 'print(\'{"ok":true,"output":{"x":NaN}}\')', 'OUTPUT_INVALID', 'not one JSON document'],
    ['two documents', 'print("{}"); print("{}")', 'OUTPUT_INVALID', 'not one JSON document'],
    ['bytes that are no text', 'import sys; sys.stdout.buffer.write(b"\\xff")', 'OUTPUT_INVALID', 'not UTF-8'],
    ['no object', 'print(\'{"ok":true,"output":[]}\')', 'OUTPUT_INVALID', 'not a JSON object'],
    [
      'too deep a value',
      'print(\'{"ok":true,"output":{"x":\' + "["*200 + "]"*200 + "}}")',
      'OUTPUT_INVALID',
      'deeper than 32',
    ],
  ])('ends with %s', async (_, script, code, message) => {
    const agent = await DockerAgent.start();
    const end = await agent.run('e1', pythonProgram(script));
    expect(end).toMatchObject({ outcome: 'failed', code, error: { message: expect.stringContaining(message) } });
    expect(end.result).toBe('');
  });

  test('tells what all of it has used', async () => {
    const agent = await DockerAgent.start();
    const child =
      'import time; x = bytes(1) * 60_000_000; t = time.process_time()\nwhile time.process_time() - t < 0.3: pass';
    const end = await agent.run(
      'e1',
      pythonProgram(
        `import subprocess, sys; subprocess.run([sys.executable, "-c", ${JSON.stringify(child)}]); ${ANSWER}{}}))`,
      ),
    );
    expect(end).toMatchObject({ outcome: 'succeeded', code: '' });
    expect(end.cpuMs).toBeGreaterThan(250);
    expect(end.maxRssBytes).toBeGreaterThan(60_000_000);
    expect(end.maxRssBytes).toBeLessThanOrEqual(Number(LIMITS.memoryBytes));
  });

  test('is out of memory when a process that it has started was', async () => {
    const agent = await DockerAgent.start();
    const script =
      'import subprocess, sys; subprocess.run([sys.executable, "-c", "x = bytes(1) * 500_000_000; open(0)"]); sys.exit(3)';
    expect(await agent.run('e1', pythonProgram(script))).toMatchObject({ code: 'OUT_OF_MEMORY', exitCode: 3 });
  });

  test('has a bound for its output, and one for its log, whose end says so', async () => {
    const agent = await DockerAgent.start();
    const limits = { ...LIMITS, outputBytes: 1000n, stderrBytes: 100n };
    const large = pythonProgram('print(\'{"ok":true,"output":{"x":"\' + "x" * 1000 + \'"}}\')');
    expect(await agent.run('e1', { ...large, limits })).toMatchObject({ code: 'OUTPUT_TOO_LARGE' });
    const larger = pythonProgram('print(\'{"ok":true,"output":{"x":"\' + "x" * 100_000 + \'"}}\')');
    expect(await agent.run('e2', { ...larger, limits })).toMatchObject({ code: 'OUTPUT_TOO_LARGE' });
    const loud = pythonProgram(`import sys; sys.stderr.write("e" * 5000); ${ANSWER}{}}))`);
    const end = await agent.run('e3', { ...loud, limits });
    expect(end).toMatchObject({ outcome: 'succeeded', stderrTruncated: true });
    expect(end.stderr.toString()).toBe(`${'e'.repeat(100)}\n[harrier: stderr truncated after 100 bytes]\n`);
    expect(end.stderrBytes).toBe(end.stderr.length);
  });

  test('is asked to end at its timeout, and killed when it does not', async () => {
    const agent = await DockerAgent.start();
    const end = await agent.run('e1', { ...pythonProgram(STUBBORN), timeout: { seconds: 1n } });
    expect(end).toMatchObject({ outcome: 'timed_out', code: 'TIMEOUT' });
    await until('the container to be removed', () => containers(agent).length === 0);
  });

  test('is cancelled: while it waits for a place, and while it runs', async () => {
    const agent = await DockerAgent.start({ places: 1 });
    agent.start('e1', pythonProgram(STUBBORN));
    agent.start('e2', pythonProgram(FOREVER));
    await agent.untilLogged('e1', 'up');
    agent.executor.cancel({ executionId: 'e2', attempt: 1 }, 'cancel', 1000);
    expect(await agent.end('e2')).toMatchObject({ outcome: 'cancelled', code: 'CANCELLED', exitCode: undefined });
    expect(agent.record.started).toEqual(new Set(['e1']));
    agent.executor.cancel({ executionId: 'e1', attempt: 1 }, 'cancel', 10);
    expect(await agent.end('e1')).toMatchObject({ outcome: 'cancelled', code: 'CANCELLED' });
  });
});

describe('a command', () => {
  test('reads the input and writes its log on both streams, byte for byte', async () => {
    const agent = await DockerAgent.start();
    const script = 'import sys; sys.stdout.buffer.write(bytes(range(256)) * 4000); sys.stderr.write(sys.stdin.read())';
    const end = await agent.run('e1', { program: { case: 'command', value: { argv: ['python3', '-c', script] } } });
    expect(end).toMatchObject({ outcome: 'succeeded', result: '', exitCode: 0 });
    expect(end.stdout.equals(Buffer.alloc(1_024_000, Buffer.from(Array.from({ length: 256 }, (_, n) => n))))).toBe(
      true,
    );
    expect(end.stderr.toString()).toBe('{"n": 1.0}');
  });

  test('that is not in the image says so', async () => {
    const agent = await DockerAgent.start();
    const end = await agent.run('e1', { program: { case: 'command', value: { argv: ['no-such-program'] } } });
    expect(end).toMatchObject({
      code: 'EXIT_NONZERO',
      exitCode: 127,
      error: { message: "'no-such-program': not found" },
    });
  });

  test('waits with its output for acknowledgements, and loses none', async () => {
    const agent = await DockerAgent.start();
    agent.record.acknowledging = false;
    const script = 'import sys; sys.stderr.write("x" * 3_000_000)';
    agent.start('e1', { program: { case: 'command', value: { argv: ['python3', '-c', script] } } });
    const received = () => agent.record.logs.get('e1 stderr')?.length ?? 0;
    await agent.record.until(() => received() >= 1024 * 1024);
    expect(received()).toBeLessThanOrEqual(1024 * 1024 + 64 * 1024);
    expect(agent.record.ends.size).toBe(0);
    agent.record.acknowledging = true;
    agent.record.acknowledge({ executionId: 'e1', attempt: 1 });
    expect((await agent.end('e1')).stderr.length).toBe(3_000_000);
  });
});

test('what a container sees: no network, no capability, no file of the host, no way to write but /tmp', async () => {
  const agent = await DockerAgent.start();
  buildImage('harrier-test/volume:1', `FROM ${PYTHON_IMAGE}\nVOLUME /data\nUSER root\nENTRYPOINT ["python3", "-c"]\n`);
  const script = `
import ctypes, json, os, socket
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
libc = ctypes.CDLL(None, use_errno=True)
def tried(what):
    try:
        what()
    except OSError as error:
        return type(error).__name__
    return "done"
print(json.dumps({"ok": True, "output": {
    "user": [os.getuid(), os.getgid(), os.getgroups()],
    "capabilities": [status[name].strip("0") for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "privileges": status["NoNewPrivs"].strip() + status["Seccomp"].strip(),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "namespace": libc.unshare(0x10000000),
    "packets": tried(lambda: socket.socket(socket.AF_PACKET)),
    "root": tried(lambda: open("/planted", "w")),
    "tmp": tried(lambda: open("/tmp/x", "w")),
    "volume": tried(lambda: open("/data/x", "wb").write(b"x" * 64_000_000)),
    "memory": int(open("/proc/meminfo").read().split()[1]) > 0,
    "socket": os.path.exists("/run/docker.sock") or os.path.exists("/var/run/docker.sock"),
    "disks": [name for name in os.listdir("/dev") if name[:2] in ("sd", "vd", "dm") or name == "kmsg"],
}}))`;
  const end = await agent.run('e1', {
    program: { case: 'image', value: { image: 'harrier-test/volume:1', argv: [script] } },
    environment: { kind: { case: 'docker', value: { image: 'harrier-test/volume:1' } } },
  });
  expect(end.code, end.stderr.toString() + end.error?.message).toBe('');
  expect(JSON.parse(end.result)).toEqual({
    user: [1000, 1000, [1000]],
    capabilities: ['', '', '', ''],
    privileges: '12',
    interfaces: ['lo'],
    namespace: -1,
    packets: 'OSError',
    root: 'OSError',
    tmp: 'done',
    volume: 'OSError',
    memory: true,
    socket: false,
    disks: [],
  });
});

describe('an image that cannot be had', () => {
  test('fails the attempt with its name and the reason', async () => {
    const agent = await DockerAgent.start();
    const image = (image: string) => ({
      ...pythonProgram('pass'),
      environment: { kind: { case: 'docker' as const, value: { image, pull: Pull.NEVER } } },
    });
    const missing = await agent.run('e1', image('no/such:1'));
    expect(missing).toMatchObject({
      code: 'ENVIRONMENT_FAILED',
      error: { message: 'the image docker.io/no/such:1 is not on this agent, and pull is NEVER' },
    });
    const bad = await agent.run('e2', image('No Such'));
    expect(bad).toMatchObject({ code: 'ENVIRONMENT_FAILED', error: { message: expect.stringContaining('"No Such"') } });
  });

  test('is denied by the rule of the agent, by whatever name it is called', async () => {
    const agent = await DockerAgent.start({ allowed: ['ghcr.io/acme/*'] });
    const id = docker('image', 'inspect', '--format', '{{.Id}}', PYTHON_IMAGE);
    for (const [n, image] of [PYTHON_IMAGE, `docker.io/${PYTHON_IMAGE}`, id, id.slice(7)].entries()) {
      const environment = { kind: { case: 'docker' as const, value: { image } } };
      const end = await agent.run(`e${n}`, { ...pythonProgram('pass'), environment });
      expect(end).toMatchObject({
        code: 'POLICY_DENIED',
        error: { message: expect.stringContaining('ghcr.io/acme/*') },
      });
    }
  });
});

test('network is refused', async () => {
  const agent = await DockerAgent.start();
  const limits = { ...LIMITS, network: Network.FULL };
  expect(agent.start('e1', { ...pythonProgram('pass'), limits })).toMatchObject({
    error: { code: Code.POLICY_DENIED },
  });
});

describe('an agent that is started again', () => {
  test('goes on with what runs and ends, without a byte too many or too few', async () => {
    const dataDir = directory('da');
    const first = await DockerAgent.start({ dataDir });
    const script = `
import json, sys, time, os
n = 0
print("up", file=sys.stderr, flush=True)
while not os.path.exists("/tmp/go"):
    n += 1
    print(n, file=sys.stderr, flush=True)
    time.sleep(0.001)
print(json.dumps({"ok": True, "output": {"n": n}}))`;
    first.start('e1', pythonProgram(script));
    first.start('e2', pythonProgram(`${ANSWER}{"e2": 2}}))`));
    await first.untilLogged('e1', '\n100\n');
    await first.end('e2');
    const stored = first.record.logs.get('e1 stderr')?.length ?? 0;
    first.close();

    const second = await DockerAgent.start({ dataDir });
    second.executor.acknowledgeOutput({ executionId: 'e1', attempt: 1 }, 0, stored);
    expect(await second.record.until(() => second.record.recovered[0])).toMatchObject([
      { executionId: 'e1', attempt: 1, finished: false },
      { executionId: 'e2', attempt: 1, finished: true },
    ]);
    expect((await second.end('e2')).result).toBe('{"e2": 2}');
    docker('exec', containers(second)[0] ?? '', 'touch', '/tmp/go');
    const end = await second.end('e1');
    const { n } = JSON.parse(end.result);
    expect(end.cpuMs).toBeGreaterThan(0);
    expect(end.stderr.toString()).toBe(`up\n${Array.from({ length: n }, (_, i) => `${i + 1}\n`).join('')}`);
    for (const executionId of ['e1', 'e2']) second.executor.forget({ executionId, attempt: 1 });
    await until('the containers to be removed', () => containers(second).length === 0);

    const third = await DockerAgent.start({ dataDir });
    expect(await third.record.until(() => third.record.recovered[0])).toEqual([]);
  });

  test('tells what a container has used that ended while no agent was there', async () => {
    const dataDir = directory('da');
    const first = await DockerAgent.start({ dataDir });
    const script = `
import os, time
x = bytes(1) * 60_000_000
while time.process_time() < 0.4:
    pass
while not os.path.exists("/tmp/go"):
    time.sleep(0.01)
print('{"ok": true, "output": {}}')`;
    first.start('e1', pythonProgram(script));
    const kept = join(dataDir, 'containers', 'e1.1', 'usage.json');
    // An agent that crashes leaves no more than it has kept by then.
    await until(
      'the processor time to be kept',
      () => existsSync(kept) && JSON.parse(readFileSync(kept, 'utf8')).cpuMs >= 400,
    );
    const [id = ''] = containers(first);
    first.close();
    docker('exec', id, 'touch', '/tmp/go');
    docker('wait', id);

    const second = await DockerAgent.start({ dataDir });
    const end = await second.end('e1');
    expect(end).toMatchObject({ outcome: 'succeeded', code: '' });
    expect(end.cpuMs).toBeGreaterThanOrEqual(400);
    expect(end.maxRssBytes).toBeGreaterThan(60_000_000);
  });

  test('gives the result of one that wrote more than is kept of it meanwhile, when its log was full before', async () => {
    const dataDir = directory('da');
    const first = await DockerAgent.start({ dataDir });
    const script = (before: number) => `
import json, os, sys, time
sys.stderr.write("x" * ${before})
sys.stderr.flush()
while not os.path.exists("/tmp/go"):
    time.sleep(0.01)
for _ in range(1000):
    sys.stderr.write("y" * 65536)
sys.stderr.flush()
print(json.dumps({"ok": True, "output": {"n": 1}}))`;
    const limits = { ...LIMITS, outputBytes: 1000n, stderrBytes: 1000n };
    first.start('full', { ...pythonProgram(script(2000)), limits });
    first.start('part', { ...pythonProgram(script(500)), limits });
    await first.untilLogged('full', 'truncated');
    await first.untilLogged('part', 'x'.repeat(500));
    const running = containers(first);
    first.close();
    for (const id of running) docker('exec', id, 'touch', '/tmp/go');
    for (const id of running) docker('wait', id);

    const second = await DockerAgent.start({ dataDir });
    expect((await second.end('full')).result).toBe('{"n": 1}');
    // What is missing of this log nobody can tell.
    expect(await second.end('part')).toMatchObject({ outcome: 'failed', code: 'INTERNAL' });
  });

  test('removes containers that nobody knows any more', async () => {
    const dataDir = directory('da');
    const labels = [`--label=harrier.agent=${dataDir}`, '--label=harrier.role=run'];
    docker('run', '--detach', '--network', 'none', ...labels, PYTHON_IMAGE, 'sleep', '3600');
    const agent = await DockerAgent.start({ dataDir });
    await until('the container to be removed', () => containers(agent).length === 0);
  });
});

test('an engine that dies ends what it ran, and is used again when it is back', async () => {
  const agent = await DockerAgent.start();
  agent.start('e1', pythonProgram(FOREVER));
  await agent.untilLogged('e1', 'up');
  onTestFinished(() => startDockerEngine());
  await stopDockerEngine('SIGKILL');
  await until('the end to be noticed', () => agent.engine.unavailable() !== undefined);
  expect(agent.start('e2', pythonProgram('pass'))).toMatchObject({ requeue: true });
  await startDockerEngine();
  expect(await agent.end('e1')).toMatchObject({ outcome: 'failed', code: 'AGENT_LOST' });
  expect(await agent.run('e3', pythonProgram(`${ANSWER}{}}))`))).toMatchObject({ outcome: 'succeeded' });
});
