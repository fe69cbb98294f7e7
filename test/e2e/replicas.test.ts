import { create as message } from '@bufbuild/protobuf';
import { Code } from '@connectrpc/connect';
import { Agent_State as AgentState, Isolation_Level as Level } from '@harrier/shared/gen/agent';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { EnvironmentSupportSchema } from '@harrier/shared/gen/link';
import { EnvironmentSchema } from '@harrier/shared/gen/module';
import { afterAll, expect, onTestFinished, test } from 'vitest';
import { ControlPlane } from '../support/control-plane.ts';
import { create, execute, finished, get, storedLog, untilPrinted, untilState } from '../support/executions.ts';
import { LogCollector } from '../support/log-collector.ts';
import { ExternalPostgres } from '../support/postgres.ts';
import { RawIdentity, RawLink } from '../support/raw-link.ts';
import { code, fixture, moduleCall } from '../support/requests.ts';
import { Stack } from '../support/stack.ts';
import { StubAgent } from '../support/stub-agent.ts';
import { ticker, tickerText } from '../support/ticker.ts';
import { until } from '../support/wait.ts';
import { writtenBytes } from '../support/written.ts';

// The agent is linked to the first of three replicas; callers talk to the second, watchers to the third.
const postgres = await ExternalPostgres.start();
afterAll(() => postgres.stop());
const [atAgent, atCaller, atWatcher] = (await Promise.all(
  [1, 2, 3].map(() => ControlPlane.start({ databaseUrl: postgres.url })),
)) as [ControlPlane, ControlPlane, ControlPlane];
afterAll(() => Promise.all([atCaller, atWatcher].map((replica) => replica.stop())));
const stack = new Stack(atAgent);
afterAll(() => stack.stop());
await stack.addAgent();
const caller = atCaller.clients;
const watcher = atWatcher.clients;
const quick = code('def handler(input):\n    return {"n": input["n"]}\n', { n: 1 });
const slow = code('import time\ndef handler(input):\n    print("begun", flush=True)\n    time.sleep(600)\n');

test('who calls, watches and reads at other replicas than that of the agent sees the same, byte for byte', async () => {
  await caller.modules.createModule({ module: { name: 'writer', version: '1.0.0', code: fixture('writer.py') } });
  const input = { seed: 7, stdout: 300_000, stderr: 100_000 };
  const id = await create(caller.executions, moduleCall('writer', input));
  const states: State[] = [];
  const log = new LogCollector({});
  let result: string | undefined;
  for await (const { event } of watcher.executions.watchExecution({ id })) {
    if (event.case === 'state') states.push(event.value.state);
    if (event.case === 'log') log.add(event.value);
    if (event.case === 'result') result = event.value.outputJson;
  }
  expect(result).toBe(JSON.stringify(input));
  expect(states).toEqual(states.toSorted((a, b) => a - b));
  expect(states.at(-1)).toBe(State.RUNNING);
  for (const { executions } of [stack.clients, caller, watcher]) {
    const { stdout, stderr } = await storedLog(executions, id);
    expect(stdout.equals(writtenBytes(input, 'stdout')) && stderr.equals(writtenBytes(input, 'stderr'))).toBe(true);
  }
  expect(log.stdout.equals(writtenBytes(input, 'stdout')) && log.stderr.equals(writtenBytes(input, 'stderr'))).toBe(
    true,
  );
});

test('calls at every replica at once are all answered', async () => {
  const calls = [stack.clients, caller, watcher].flatMap(({ executions }, place) =>
    Array.from({ length: 40 }, async (_, n) => {
      const { state, outputJson } = await execute(executions, code(quick.target.value.source, { n: place * 100 + n }));
      return { state, outputJson, wanted: JSON.stringify({ n: place * 100 + n }) };
    }),
  );
  for (const { state, outputJson, wanted } of await Promise.all(calls)) {
    expect({ state, outputJson }).toEqual({ state: State.SUCCEEDED, outputJson: wanted });
  }
});

test('a line is seen at another replica while the code still runs, and progress too', async () => {
  const source = `import time
def handler(input, context):
    print("first", flush=True)
    context.progress(50, "half")
    time.sleep(600)
`;
  const id = await create(caller.executions, code(source));
  let printed = '';
  let step = '';
  for await (const { event } of watcher.executions.watchExecution({ id })) {
    if (event.case === 'log') printed += Buffer.from(event.value.data).toString();
    if (event.case === 'progress') step = event.value.step;
    if (event.case === 'result') throw new Error('it ended');
    if (printed.endsWith('\n') && step !== '') break;
  }
  expect({ printed, step }).toEqual({ printed: 'first\n', step: 'half' });
  let followed = '';
  for await (const { chunk } of watcher.executions.readLogs({ id, follow: true })) {
    followed += Buffer.from(chunk?.data ?? []).toString();
    if (followed.endsWith('\n')) break;
  }
  expect(followed).toBe('first\n');
  await watcher.executions.cancelExecution({ id, reason: 'seen' });
  expect(await finished(caller.executions, id)).toMatchObject({
    state: State.CANCELLED,
    error: { message: 'seen' },
  });
});

test('what runs is cancelled from a replica that has neither its caller nor its agent, and its caller is answered', async () => {
  const call = execute(caller.executions, { ...slow, labels: { call: 'cancelled' } });
  const id = await until('the call to be seen', async () => {
    const { executions } = await watcher.executions.listExecutions({ labelSelector: 'call=cancelled' });
    return executions[0]?.id;
  });
  await untilPrinted(watcher.executions, id, 'begun');
  await watcher.executions.cancelExecution({ id });
  expect(await call).toMatchObject({ state: State.CANCELLED });
});

test('that an agent has lost its sandbox is known at other replicas than its own', async () => {
  const agent = await StubAgent.join(atAgent, 'bare', { isolation: { level: Level.SANDBOX } });
  onTestFinished(() => agent.leave());
  const untilLevel = async (level: Level) => {
    await until(`the isolation to be ${level}`, async () => {
      const found = await watcher.agents.getAgent({ id: agent.identity.agentId });
      return found.agent?.isolation?.level === level;
    });
  };
  await untilLevel(Level.SANDBOX);
  agent.link.send({ case: 'heartbeat', value: { isolation: { level: Level.NONE } } });
  await untilLevel(Level.NONE);
});

test('what waits at one replica is cancelled at another, and whoever waits for it is answered', async () => {
  const waiting = { ...quick, agentSelector: 'none=here' };
  const call = execute(caller.executions, { ...waiting, labels: { call: 'waiting' } });
  const id = await until('the call to be seen', async () => {
    const { executions } = await watcher.executions.listExecutions({ labelSelector: 'call=waiting' });
    return executions[0]?.id;
  });
  // The agent of another replica is named with what keeps it from taking the execution.
  expect(await get(caller.executions, id)).toMatchObject({
    state: State.PENDING,
    waitingReason: 'agent-1: labels do not match "none=here"',
  });
  await watcher.executions.cancelExecution({ id });
  expect(await call).toMatchObject({ state: State.CANCELLED });
});

test('an agent is online at every replica, and is drained, resumed and deleted from any', async () => {
  const agent = await stack.addAgent({ name: 'elsewhere', labels: { place: 'elsewhere' } });
  const id = await stack.idOf('elsewhere');
  const wanted = { ...slow, agentSelector: 'place=elsewhere' };
  const running = await create(caller.executions, wanted);
  await untilState(watcher.executions, running, State.RUNNING);
  const seen = async () => (await watcher.agents.getAgent({ id })).agent;
  expect(await seen()).toMatchObject({ state: AgentState.ONLINE, activeExecutions: 1 });
  expect((await watcher.agents.drainAgent({ id })).agent).toMatchObject({ state: AgentState.DRAINING });
  await until('the drain to reach the agent', () => agent.program.stdout.includes('drain requested'));
  const later = await create(caller.executions, wanted);
  expect(await get(caller.executions, later)).toMatchObject({ state: State.PENDING });
  expect((await caller.agents.listAgents({ state: AgentState.DRAINING })).agents.map(({ name }) => name)).toEqual([
    'elsewhere',
  ]);
  await caller.agents.resumeAgent({ id });
  await untilState(watcher.executions, later, State.RUNNING);
  const lost = finished(watcher.executions, running);
  await watcher.agents.deleteAgent({ id });
  await until('the agent to give up', () => !agent.program.running);
  await caller.executions.cancelExecution({ id: running });
  await caller.executions.cancelExecution({ id: later });
  expect(await lost).toMatchObject({
    state: State.CANCELLED,
    attempts: [{ error: { message: 'the agent was deleted' } }],
  });
});

test('an agent that is stopping is draining at every replica', async () => {
  const agent = await stack.addAgent({ name: 'stopping', labels: { place: 'stopping' } });
  const id = await stack.idOf('stopping');
  const running = await create(caller.executions, { ...slow, agentSelector: 'place=stopping' });
  await untilPrinted(watcher.executions, running, 'begun');
  agent.program.signal('SIGTERM');
  await until('the other replicas to know', async () => {
    const { agent: seen } = await watcher.agents.getAgent({ id });
    return seen?.state === AgentState.DRAINING && !seen.drainRequested;
  });
  await caller.executions.cancelExecution({ id: running });
  await agent.program.exited;
  await until('it to be gone', async () => {
    const { agent: seen } = await watcher.agents.getAgent({ id });
    return seen?.state === AgentState.OFFLINE;
  });
  await agent.remove();
});

test('a new version of a module is the one that runs at every replica', async () => {
  const version = async (at: typeof caller) => (await execute(at.executions, moduleCall('counted'))).outputJson;
  const register = (at: typeof caller, number: number) =>
    at.modules.createModule({
      module: {
        name: 'counted',
        version: `${number}.0.0`,
        code: `def handler(input):\n    return {"version": ${number}}\n`,
      },
    });
  await register(caller, 1);
  expect(await version(watcher)).toBe('{"version":1}');
  await register(stack.clients, 2);
  await until('the new version to run', async () => (await version(watcher)) === '{"version":2}');
  await caller.modules.deleteModule({ name: 'counted', version: '2.0.0' });
  await until('the old version to run again', async () => (await version(watcher)) === '{"version":1}');
});

test('a module is validated by agents of every replica, also with a lock that is larger than what replicas tell', async () => {
  const links = await Promise.all(
    [atAgent, atCaller].map(async (replica, place) => {
      const identity = new RawIdentity();
      const joinToken = await atCaller.joinToken();
      const environments = message(EnvironmentSupportSchema, { available: ['venv'] });
      const facts = { name: `raw-${place}`, labels: { place: 'raw' }, joinToken, environments };
      return await RawLink.join(replica.url, identity, facts);
    }),
  );
  onTestFinished(() => {
    for (const link of links) link.close();
  });
  const [there, here] = links as [RawLink, RawLink];
  const requirements = Array.from({ length: 1_000 }, (_, n) => `package-${n}`);
  const lock = requirements.map((name) => `${name}==1.0.0\n`).join('');
  const environment = message(EnvironmentSchema, { kind: { case: 'venv', value: { requirements } } });
  const module = {
    name: 'asked',
    version: '1.0.0',
    code: fixture('writer.py'),
    environment,
    agentSelector: 'place=raw',
  };
  // What a replica knows of agents of others may be a second old; of an inline module it asks none of them.
  await until('both agents to be known at the third replica', async () => {
    const { agents } = await watcher.modules.validateModule({ module: { ...module, environment: undefined } });
    return agents.length === links.length;
  });
  // Of three replicas the third has neither of the agents.
  const asked = watcher.modules.validateModule({ module });
  const first = await there.next('resolve');
  expect(first.environment?.kind.value).toMatchObject({ requirements });
  there.send({ case: 'resolved', value: { id: first.id, lock, sizeBytes: 5n, platform: 'linux' } });
  const second = await here.next('resolve');
  expect(second.decidedLocks).toEqual({ linux: lock });
  here.send({ case: 'resolved', value: { id: second.id, lock, held: true } });
  expect(await asked).toMatchObject({
    lock,
    sizeBytes: 5n,
    agents: [
      { name: 'raw-0', held: false, reason: '' },
      { name: 'raw-1', held: true, reason: '' },
    ],
  });
  // One that leaves before it answers is passed over; a caller's deadline ends the wait.
  const again = watcher.modules.validateModule({ module });
  await there.next('resolve');
  there.close();
  const { id } = await here.next('resolve');
  here.send({ case: 'resolved', value: { id, lock } });
  expect(await again).toMatchObject({
    lock,
    agents: [{ reason: expect.stringContaining('try again') }, { reason: '' }],
  });
  const late = watcher.modules.validateModule({ module }, { timeoutMs: 1_000 });
  await expect(late).rejects.toMatchObject({ code: Code.DeadlineExceeded });
});

test('an agent moves to another replica: its executions go on there, with their whole logs', async () => {
  const TICKS = { lines: 150, width: 20, pause: 0.02 };
  const mover = await ControlPlane.start({ databaseUrl: postgres.url });
  const agent = await stack.startAgent({ name: 'mover', labels: { place: 'mover' }, serverUrl: mover.url });
  await stack.untilOnline('mover');
  const ids = await Promise.all(
    [caller, watcher].map(({ executions }) => create(executions, { ...ticker(TICKS), agentSelector: 'place=mover' })),
  );
  for (const id of ids) await untilPrinted(caller.executions, id, 'line 10 ');
  await mover.stop();
  // The same address, another replica.
  const next = await ControlPlane.start({ databaseUrl: postgres.url, port: mover.port });
  for (const id of ids) {
    expect(await finished(watcher.executions, id)).toMatchObject({ state: State.SUCCEEDED, attempt: 1 });
    expect((await storedLog(caller.executions, id)).stdout.toString()).toBe(tickerText(TICKS));
  }
  await agent.remove();
  await next.stop();
});
