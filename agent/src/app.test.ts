import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { ManagedService_State as ServiceState } from '@harrier/shared/gen/agent';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { Goodbye_Code } from '@harrier/shared/gen/link';
import { describe, expect, onTestFinished, test } from 'vitest';
import { type Agent, startAgent } from './app.ts';
import { readConfig } from './config.ts';
import { LinkServer, type ServerSide } from './test-support/link-server.ts';
import { call, connectLauncher, startOldLauncher } from './test-support/real-launcher.ts';
import { silentLogger } from './test-support/silent-logger.ts';
import { openTempDir, tempDir } from './test-support/temp-dir.ts';

const LIMIT = 16n * 1024n * 1024n;

/** An agent on a directory, with a real launcher. It stops with the test, and with it the launcher unless it is kept. */
async function startOn(server: LinkServer, dataDir: string, settings: Record<string, string> = {}): Promise<Agent> {
  const config = readConfig(settings, {
    PATH: '/usr/local/bin:/usr/bin:/bin',
    HARRIER_SERVER_URL: server.httpUrl,
    HARRIER_JOIN_TOKEN: 'token',
    HARRIER_AGENT_DATA_DIR: dataDir,
    HARRIER_AGENT_ENVIRONMENTS_DIR: openTempDir(),
    HARRIER_AGENT_METRICS_LISTEN: '127.0.0.1:0',
    HARRIER_AGENT_STOP_LAUNCHER: 'true',
    HARRIER_AGENT_SLOTS: '2',
  });
  const agent = await startAgent(config, silentLogger());
  onTestFinished(async () => {
    agent.stop();
    agent.stop();
    await agent.ended;
  });
  return agent;
}

function assign(side: ServerSide, executionId: string, source: string, maxDisconnectMs = 0): void {
  side.send({
    case: 'assignment',
    value: {
      ref: { executionId, attempt: 1 },
      tenant: 'acme',
      program: { case: 'python', value: { source, handler: 'handler', filename: 'test.py' } },
      inputJson: Buffer.from('{"name":"you"}'),
      timeout: { seconds: 60n },
      limits: {
        memoryBytes: 32n * LIMIT,
        stdoutBytes: LIMIT,
        stderrBytes: LIMIT,
        outputBytes: 8_323_072n,
        tmpBytes: LIMIT,
      },
      taskClass: 'cpu_short',
      maxDisconnect: durationFromMs(maxDisconnectMs),
      environment: { kind: { case: 'inline', value: {} } },
    },
  });
}

const HELLO = 'def handler(input):\n    print("printed")\n    return {"hello": input["name"]}\n';
const LINES = 'def handler(input):\n    for n in range(200000):\n        print(n)\n    return {}\n';
const EXPECTED_LINES = Array.from({ length: 200_000 }, (_, n) => `${n}\n`).join('');
const SLOW = 'import time\ndef handler(input):\n    print("up")\n    time.sleep(2)\n    return {"slow": True}\n';
/** Goes on until another agent has started, also on a busy machine. */
const FOR_TWO_AGENTS = SLOW.replace('sleep(2)', 'sleep(10)');
const FOR_TWO_LEASES = 'import time\ndef handler(input):\n    time.sleep(6)\n    return {}\n';
const FOREVER = 'import time\ndef handler(input):\n    time.sleep(3600)\n';

describe('an agent', () => {
  test('joins, runs a handler, and is known after a restart', async () => {
    const server = await LinkServer.start();
    const dataDir = tempDir();
    const agent = await startOn(server, dataDir);
    const side = await server.connection();
    const hello = await side.welcome('agent-5');
    expect(hello).toMatchObject({
      agentId: '',
      joinToken: 'token',
      slots: 2,
      held: [],
      environments: { available: expect.arrayContaining(['inline']) },
    });
    expect(hello.hardware?.cpu?.logicalCores).toBeGreaterThan(0);
    expect((await side.next('heartbeat')).stopping).toBe(false);
    assign(side, 'e1', HELLO);
    const { stdout, result } = await side.collect();
    expect(stdout).toBe('printed\n');
    expect(result).toMatchObject({ state: State.SUCCEEDED, stdoutBytes: 8n });
    expect(Buffer.from(result.outputJson).toString()).toBe('{"hello":"you"}');
    agent.stop();
    expect((await side.next('heartbeat')).stopping).toBe(true);
    expect(await agent.ended).toBeUndefined();
    await startOn(server, dataDir);
    expect(await (await server.connection()).welcome()).toMatchObject({ agentId: 'agent-5', joinToken: '' });
  });

  test('tells every byte although the link breaks in the middle', async () => {
    const server = await LinkServer.start();
    await startOn(server, tempDir());
    const first = await server.connection();
    await first.welcome();
    assign(first, 'e1', LINES);
    await first.next('log');
    first.socket.terminate();
    const second = await server.connection();
    expect((await second.welcome()).held).toMatchObject([{ ref: { executionId: 'e1', attempt: 1 } }]);
    const { stdout, result } = await second.collect();
    expect(stdout === EXPECTED_LINES, `${stdout.length} bytes`).toBe(true);
    expect(result.stdoutBytes).toBe(BigInt(EXPECTED_LINES.length));
  });

  test('leaves running work to the next one', async () => {
    const server = await LinkServer.start();
    const dataDir = tempDir();
    const keep = { HARRIER_AGENT_STOP_LAUNCHER: 'false', HARRIER_AGENT_STOP_GRACE_S: '0' };
    const before = await startOn(server, dataDir, keep);
    const first = await server.connection();
    await first.welcome();
    assign(first, 'e1', FOR_TWO_AGENTS);
    await first.next('started');
    before.stop();
    await before.ended;
    await startOn(server, dataDir);
    const second = await server.connection();
    expect((await second.welcome()).held).toMatchObject([{ ref: { executionId: 'e1' }, finished: false }]);
    const { stdout, result } = await second.collect();
    expect(stdout).toBe('up\n');
    expect(Buffer.from(result.outputJson).toString()).toBe('{"slow":true}');
  });

  test('cancels on demand, and takes no more than its slots', async () => {
    const server = await LinkServer.start();
    await startOn(server, tempDir());
    const side = await server.connection();
    await side.welcome();
    for (const id of ['e1', 'e2', 'e3']) assign(side, id, FOREVER);
    expect(await side.next('rejected')).toMatchObject({ ref: { executionId: 'e3' }, requeue: true });
    await side.next('started');
    await side.next('started');
    side.send({ case: 'cancel', value: { ref: { executionId: 'e2', attempt: 1 }, grace: {} } });
    const { result } = await side.collect();
    expect(result).toMatchObject({
      ref: { executionId: 'e2' },
      state: State.CANCELLED,
      error: { code: Code.CANCELLED },
    });
    side.send({ case: 'drop', value: { ref: { executionId: 'e1', attempt: 1 }, reason: 'for the test' } });
    assign(side, 'e4', HELLO);
    expect((await side.collect()).result).toMatchObject({ ref: { executionId: 'e4' }, state: State.SUCCEEDED });
  });

  test('starts nothing that asks for more than its own configuration allows', async () => {
    const server = await LinkServer.start();
    await startOn(server, tempDir(), { HARRIER_AGENT_MAX_TMP_BYTES: String(LIMIT - 1n) });
    const side = await server.connection();
    await side.welcome();
    assign(side, 'e1', HELLO);
    const message = `limits.tmp_bytes asks for ${LIMIT} bytes; this agent allows at most ${LIMIT - 1n} bytes (HARRIER_AGENT_MAX_TMP_BYTES)`;
    expect(await side.next('rejected')).toMatchObject({
      ref: { executionId: 'e1' },
      requeue: false,
      error: { code: Code.POLICY_DENIED, message },
    });
  });

  test('takes no work while it is draining', async () => {
    const server = await LinkServer.start();
    await startOn(server, tempDir());
    const side = await server.connection();
    await side.welcome();
    side.send({ case: 'drain', value: { draining: true } });
    assign(side, 'e1', HELLO);
    expect(await side.next('rejected')).toMatchObject({ requeue: true, error: { message: 'the agent is draining' } });
    side.send({ case: 'drain', value: { draining: false } });
    assign(side, 'e1', HELLO);
    expect((await side.collect()).result.state).toBe(State.SUCCEEDED);
  });

  test('that is asked to stop twice cancels what runs and tells it', async () => {
    const server = await LinkServer.start();
    const agent = await startOn(server, tempDir());
    const side = await server.connection();
    await side.welcome();
    assign(side, 'e1', FOREVER);
    await side.next('started');
    agent.stop();
    agent.stop();
    const { result } = await side.collect();
    expect(result).toMatchObject({ state: State.FAILED, error: { code: Code.AGENT_LOST } });
    expect(await agent.ended).toBeUndefined();
    expect(await side.closed).toBe(1000);
  });

  test('that was deleted ends, with the reason', async () => {
    const server = await LinkServer.start();
    const agent = await startOn(server, tempDir());
    const side = await server.connection();
    await side.welcome();
    side.send({ case: 'goodbye', value: { code: Goodbye_Code.REVOKED, message: 'deleted' } });
    expect(await agent.ended).toBe('the control plane has deleted this agent: deleted');
  });
});

test('an agent whose services wait for a driver that hangs is there, and keeps what a former one has left', async () => {
  const server = await LinkServer.start();
  const [dataDir, host] = [tempDir(), tempDir()];
  // It answers at the end of the test, so that nobody is left behind.
  const tool = `#!/bin/sh\nwhile [ ! -e ${host}/answers ] && [ -e ${host} ]; do sleep 0.1; done\n`;
  writeFileSync(join(host, 'nvidia-smi'), tool, { mode: 0o755 });
  onTestFinished(() => writeFileSync(join(host, 'answers'), ''));
  const file = join(host, 'services.yaml');
  writeFileSync(file, 'services:\n  - { name: model, image: x, gpus: [MIG-1] }\n');
  const settings = {
    PATH: `${host}:/usr/local/bin:/usr/bin:/bin`,
    HARRIER_AGENT_GPUS: 'GPU-1',
    HARRIER_SERVICES_CONFIG: file,
    HARRIER_AGENT_DOCKER_HOST: `unix://${host}/no-engine.sock`,
    HARRIER_AGENT_STOP_GRACE_S: '0',
  };
  const before = await startOn(server, dataDir, { ...settings, HARRIER_AGENT_STOP_LAUNCHER: 'false' });
  const first = await server.connection();
  await first.welcome();
  assign(first, 'e1', FOR_TWO_AGENTS);
  await first.next('started');
  before.stop();
  await before.ended;
  await startOn(server, dataDir, settings);
  const second = await server.connection();
  const { held, services } = await second.welcome();
  expect(held).toMatchObject([{ ref: { executionId: 'e1' }, finished: false }]);
  expect(services).toMatchObject([{ name: 'model', state: ServiceState.FAILED }]);
  expect((await second.collect()).result.state).toBe(State.SUCCEEDED);
});

describe('the lease of an agent', () => {
  const LEASE_MS = 3_000;

  test('is renewed by its heartbeats, and lets work go on', async () => {
    const server = await LinkServer.start();
    await startOn(server, tempDir());
    const side = await server.connection();
    const hello = await side.welcome('agent-1', LEASE_MS);
    expect(hello.bootId).toBe(readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim());
    assign(side, 'e1', FOR_TWO_LEASES);
    for (const number of [1n, 2n, 3n]) expect((await side.next('heartbeat')).number).toBe(number);
    expect((await side.collect()).result.state).toBe(State.SUCCEEDED);
  });

  test('is renewed while the agent stops, until what runs has ended', async () => {
    const server = await LinkServer.start();
    const agent = await startOn(server, tempDir());
    const side = await server.connection();
    await side.welcome('agent-1', LEASE_MS);
    assign(side, 'e1', FOR_TWO_LEASES);
    await side.next('started');
    agent.stop();
    expect((await side.collect()).result.state).toBe(State.SUCCEEDED);
    expect(await agent.ended).toBeUndefined();
  });

  test('stops what the module does not keep, and is told to the next control plane', async () => {
    const server = await LinkServer.start();
    await startOn(server, tempDir());
    const first = await server.connection();
    await first.welcome('agent-1', LEASE_MS);
    assign(first, 'stopped', FOREVER);
    assign(first, 'kept', SLOW, 60_000);
    await first.next('started');
    await first.next('started');
    // Nothing renews: the link is given up in time, but nobody answers there either.
    first.renews = false;
    await first.closed;
    const second = await server.connection();
    await second.closed;
    const third = await server.connection();
    await third.welcome('agent-1', LEASE_MS);
    const results = [await third.collect(), await third.collect()].map(({ result }) => [
      result.ref?.executionId,
      result.state,
      result.error?.code,
    ]);
    expect(results.toSorted()).toEqual([
      ['kept', State.SUCCEEDED, undefined],
      ['stopped', State.FAILED, Code.AGENT_LOST],
    ]);
  });

  test('ends also when the agent is gone', async () => {
    const server = await LinkServer.start();
    const dataDir = tempDir();
    const before = await startOn(server, dataDir, {
      HARRIER_AGENT_STOP_LAUNCHER: 'false',
      HARRIER_AGENT_STOP_GRACE_S: '0',
    });
    const first = await server.connection();
    await first.welcome('agent-1', LEASE_MS);
    assign(first, 'e1', FOREVER);
    await first.next('started');
    before.stop();
    await before.ended;
    await startOn(server, dataDir);
    const second = await server.connection();
    // The new agent is not answered until the old one's lease is over.
    second.send({ case: 'challenge', value: { nonce: second.nonce } });
    await second.closed;
    const third = await server.connection();
    await third.welcome('agent-1', LEASE_MS);
    expect((await third.collect()).result).toMatchObject({
      state: State.FAILED,
      error: { code: Code.AGENT_LOST, message: expect.stringContaining('could not reach the control plane') },
    });
  });
});

describe('an agent that finds the launcher of an older one', () => {
  /** An old launcher that runs something, which no agent is connected to. */
  async function startBusyLauncher(dataDir: string, change: readonly [string, string], source: string): Promise<void> {
    await startOldLauncher(dataDir, { 'supervisor.py': change });
    const { launcher, record } = connectLauncher(dataDir);
    await launcher.open();
    launcher.startAttempt(...call('old', { code: source }));
    await record.until('started');
    launcher.close();
  }

  /** Process numbers of the launchers that there were, from their log. */
  function launchersOf(dataDir: string): number[] {
    const lines = readFileSync(join(dataDir, 'launcher.log'), 'utf8')
      .split('\n')
      .filter((line) => line !== '');
    return lines.map((line) => JSON.parse(line)).flatMap(({ msg, pid }) => (msg === 'ready' ? [pid] : []));
  }

  test('goes on with it while it has something to do, then starts its own, and loses nothing on the way', async () => {
    const server = await LinkServer.start();
    const dataDir = tempDir();
    await startBusyLauncher(dataDir, ['PROTOCOL = 1\n', 'PROTOCOL = 1\n\n'], FOR_TWO_AGENTS);
    await startOn(server, dataDir);
    const side = await server.connection();
    expect((await side.welcome()).held).toMatchObject([{ ref: { executionId: 'old' }, finished: false }]);
    assign(side, 'new', HELLO);
    const results = [await side.collect(), await side.collect()];
    expect(results.map(({ result }) => [result.ref?.executionId, result.state])).toEqual([
      ['new', State.SUCCEEDED],
      ['old', State.SUCCEEDED],
    ]);
    // The last result was just acknowledged: this comes while the launcher is being replaced, or after it.
    assign(side, 'newest', HELLO);
    expect((await side.collect()).result).toMatchObject({ ref: { executionId: 'newest' }, state: State.SUCCEEDED });
    expect(new Set(launchersOf(dataDir)).size).toBe(2);
  });

  test('replaces it at once when it has nothing to do', async () => {
    const server = await LinkServer.start();
    const dataDir = tempDir();
    await startOldLauncher(dataDir, { 'supervisor.py': ['PROTOCOL = 1\n', 'PROTOCOL = 1\n\n'] });
    await startOn(server, dataDir);
    const side = await server.connection();
    await side.welcome();
    assign(side, 'e1', HELLO);
    expect((await side.collect()).result.state).toBe(State.SUCCEEDED);
    expect(new Set(launchersOf(dataDir)).size).toBe(2);
  });

  test('stops attempts with the lease itself where that launcher is older than leases', async () => {
    const server = await LinkServer.start();
    const dataDir = tempDir();
    await startBusyLauncher(dataDir, ['FEATURES = ("lease"', 'FEATURES = ("none"'], FOREVER);
    await startOn(server, dataDir);
    const first = await server.connection();
    await first.welcome('agent-1', 3_000);
    assign(first, 'e1', FOREVER);
    await first.next('started');
    first.renews = false;
    await first.closed;
    const second = await server.connection();
    await second.closed;
    const third = await server.connection();
    await third.welcome('agent-1', 3_000);
    const results = [await third.collect(), await third.collect()].map(({ result }) => [
      result.ref?.executionId,
      result.error?.message,
    ]);
    const reason = 'its agent could not reach the control plane for longer than it may go on';
    expect(results.toSorted()).toEqual([
      ['e1', reason],
      ['old', reason],
    ]);
  });

  test('and leaves one that it has started itself as it is', async () => {
    const server = await LinkServer.start();
    const dataDir = tempDir();
    await startOn(server, dataDir);
    const side = await server.connection();
    await side.welcome();
    for (const id of ['e1', 'e2']) {
      assign(side, id, HELLO);
      expect((await side.collect()).result.state).toBe(State.SUCCEEDED);
    }
    expect(launchersOf(dataDir)).toHaveLength(1);
  });
});

test('an agent that has neither joined nor a token says so', async () => {
  const dataDir = join(tempDir(), 'agent');
  const config = readConfig({ HARRIER_AGENT_DATA_DIR: dataDir }, { HARRIER_SERVER_URL: 'http://127.0.0.1:1' });
  await expect(startAgent(config, silentLogger())).rejects.toThrow(
    `HARRIER_JOIN_TOKEN is missing: the agent in ${dataDir} has not joined yet`,
  );
  // Nothing is left open: the directory is free again.
  await expect(startAgent(config, silentLogger())).rejects.toThrow('HARRIER_JOIN_TOKEN is missing');
});
