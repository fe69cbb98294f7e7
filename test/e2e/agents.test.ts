import { Agent_State as AgentState } from '@harrier/shared/gen/agent';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { Agent } from '../support/agent.ts';
import { create, execute, finished, get, untilPrinted } from '../support/executions.ts';
import { http } from '../support/http.ts';
import { code } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { ticker } from '../support/ticker.ts';
import { until, within } from '../support/wait.ts';

const stack = await startStack({
  agents: [
    { labels: { zone: 'eu', tier: 'gold' } },
    { labels: { zone: 'us' }, env: { HARRIER_AGENT_LABELS: 'disk=ssd' } },
  ],
});
const { clients, executions } = stack;
const quick = code('def handler(input):\n    return {"done": True}\n');

test('an agent shows its hardware, its labels and what confines its code', async () => {
  const { agents } = await clients.agents.listAgents({});
  expect(agents.map(({ name }) => name)).toEqual(['agent-1', 'agent-2']);
  // A busy host may be asked more than once.
  await until('the tools of the host to be found', async () => {
    const { agent } = await clients.agents.getAgent({ id: agents[0]?.id ?? '' });
    const tools = agent?.hardware?.tools.map(({ name }) => name);
    return tools?.includes('python') && tools.includes('bubblewrap');
  });
  expect(agents[0]).toMatchObject({
    state: AgentState.ONLINE,
    labels: { zone: 'eu', tier: 'gold' },
    isolation: { level: 2 },
  });
  expect(agents[1]?.labels).toEqual({ zone: 'us', disk: 'ssd' });
  const hardware = agents[0]?.hardware;
  expect(hardware?.cpu?.logicalCores).toBeGreaterThan(0);
  expect(hardware?.memoryBytes).toBeGreaterThan(0n);
  expect(hardware?.os).toMatchObject({ platform: 'linux' });
  expect(hardware?.bootId).not.toBe('');
  const { json } = await clients.rest('GET', '/agents?label_selector=zone%3Deu');
  expect(json.agents.map(({ name }: { name: string }) => name)).toEqual(['agent-1']);
});

test.each([
  ['zone=eu', 'agent-1'],
  ['zone in (us, asia)', 'agent-2'],
  ['disk', 'agent-2'],
  ['!disk, tier=gold', 'agent-1'],
])('an execution with the selector "%s" runs on %s', async (agentSelector, name) => {
  const { agentId } = await execute(executions, { ...quick, agentSelector });
  expect(agentId).toBe(await stack.idOf(name));
});

test('an agent runs code although its shell keeps what it makes to itself', async () => {
  const wrapper = ['sh', '-c', 'umask 077 && exec "$@"', 'sh'];
  await stack.addAgent({ name: 'private', labels: { zone: 'private' }, wrapper });
  const { state } = await execute(executions, { ...quick, agentSelector: 'zone=private' });
  expect(state).toBe(State.SUCCEEDED);
  await stack.agents.pop()?.remove();
});

test('an execution that no agent matches waits and says why for each agent', async () => {
  const id = await create(executions, { ...quick, agentSelector: 'zone=mars' });
  const { state, waitingReason } = await get(executions, id);
  expect(state).toBe(State.PENDING);
  expect(waitingReason).toContain('agent-1: labels do not match "zone=mars"');
  expect(waitingReason).toContain('agent-2: labels do not match "zone=mars"');
  await executions.cancelExecution({ id });
});

test('who watches an execution that waits is told why, and when the reason changes', async () => {
  const eu = await stack.idOf('agent-1');
  const id = await create(executions, { ...quick, agentSelector: 'zone=eu, tier=iron' });
  const reasons: string[] = [];
  for await (const { event } of executions.watchExecution({ id })) {
    if (event.case !== 'state') continue;
    expect(event.value.state).toBe(State.PENDING);
    reasons.push(event.value.waitingReason);
    if (reasons.length === 1) await clients.agents.drainAgent({ id: eu });
    if (reasons.length === 2) break;
  }
  await clients.agents.resumeAgent({ id: eu });
  await executions.cancelExecution({ id });
  expect(reasons).toEqual([
    expect.stringContaining('agent-1: labels do not match "tier=iron"'),
    expect.stringContaining('agent-1: draining'),
  ]);
});

test('an agent that is drained finishes what it has and gets nothing new until it is resumed, also across a restart', async () => {
  const onEu = { agentSelector: 'zone=eu' };
  const [agent] = stack.agents;
  const running = await create(executions, { ...ticker({ lines: 30 }), ...onEu });
  await untilPrinted(executions, running, 'line 1');
  const id = await stack.idOf('agent-1');
  const { agent: draining } = await clients.agents.drainAgent({ id });
  expect(draining).toMatchObject({ state: AgentState.DRAINING, drainRequested: true });
  const waiting = await create(executions, { ...quick, ...onEu });
  expect((await get(executions, waiting)).waitingReason).toContain('agent-1: draining');
  expect(await finished(executions, running)).toMatchObject({ state: State.SUCCEEDED });
  await agent?.stop();
  await stack.untilOffline('agent-1');
  agent?.startAgain();
  await until('the agent to be back, draining', async () => {
    const { agent: now } = await clients.agents.getAgent({ id });
    return now?.state === AgentState.DRAINING;
  });
  expect(await get(executions, waiting)).toMatchObject({ state: State.PENDING });
  const resumed = await clients.rest('POST', `/agents/${id}/resume`, {});
  expect(resumed.json).toMatchObject({ id, state: 'ONLINE' });
  expect(await finished(executions, waiting)).toMatchObject({ state: State.SUCCEEDED, agentId: id });
});

test('the health of an agent is told on its metrics port', async () => {
  const url = await stack.agents[1]?.metricsUrl();
  const health = await until('the agent to be healthy', async () => {
    const answer = await http(`${url}/healthz`);
    return answer.status === 200 && answer;
  });
  expect(health.text).toContain(await stack.idOf('agent-2'));
});

test('an agent with a join token that was used ends with the reason, and does not try again', async () => {
  const joinToken = await stack.controlPlane.joinToken();
  await stack.addAgent({ name: 'agent-3', joinToken });
  const late = Agent.start({ name: 'late', serverUrl: stack.controlPlane.url, joinToken });
  expect(await within('the agent to give up', late.program.exited)).toMatchObject({ code: 77 });
  expect(late.program.stderr).toContain('the join token is unknown, expired or used');
  await late.remove();
});

test('an agent without a token says what it needs', async () => {
  const agent = Agent.start({ name: 'new', serverUrl: stack.controlPlane.url });
  expect(await within('the agent to give up', agent.program.exited)).toMatchObject({ code: 78 });
  expect(agent.program.stderr).toContain('HARRIER_JOIN_TOKEN is missing');
});

test('a second agent on the same data directory is refused, the first goes on', async () => {
  const [first] = stack.agents;
  const second = Agent.start({
    name: 'second',
    serverUrl: stack.controlPlane.url,
    dataDirectory: first?.dataDirectory ?? '',
  });
  expect(await within('the agent to give up', second.program.exited)).toMatchObject({ code: 1 });
  expect(second.program.stderr).toMatch(/is in use by another agent/);
  expect(await execute(executions, { ...quick, agentSelector: 'zone=eu' })).toMatchObject({ state: State.SUCCEEDED });
});

test('an agent that is deleted ends with the reason, and what it ran ends with it', async () => {
  const agent = stack.agents.find(({ options }) => options.name === 'agent-3');
  const id = await stack.idOf('agent-3');
  const running = await create(executions, {
    ...ticker({ lines: 100_000 }),
    agentSelector: '!zone',
    retryPolicy: { maxAttempts: 1 },
  });
  await untilPrinted(executions, running, 'line 1');
  const answer = await clients.rest('DELETE', `/agents/${id}`);
  expect(answer.status).toBe(200);
  expect(await finished(executions, running)).toMatchObject({ state: State.FAILED, error: { code: 14 } });
  if (agent !== undefined) {
    expect(await within('the agent to give up', agent.program.exited)).toMatchObject({ code: 77 });
    expect(agent.program.stderr).toContain('the agent was deleted');
    agent.startAgain();
    expect(await within('the agent to give up', agent.program.exited)).toMatchObject({ code: 77 });
  }
  expect((await clients.rest('GET', `/agents/${id}`)).status).toBe(404);
});
