import { Agent_State as AgentState } from '@harrier/shared/gen/agent';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { afterAll, expect, onTestFinished, test } from 'vitest';
import type { Clients } from '../support/clients.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { create, get, untilState } from '../support/executions.ts';
import { ExternalPostgres } from '../support/postgres.ts';
import { RawIdentity, RawLink } from '../support/raw-link.ts';
import { code } from '../support/requests.ts';
import { DEADLINE_MS, until } from '../support/wait.ts';

const postgres = await ExternalPostgres.start();
afterAll(() => postgres.stop());
const start = () => ControlPlane.start({ databaseUrl: postgres.url, env: { HARRIER_LEASE_S: '3' } });
const replicas = (await Promise.all([start(), start()])) as [ControlPlane, ControlPlane];
afterAll(() => Promise.all(replicas.map((replica) => replica.stop())));
const [atAgents, elsewhere] = replicas;

/** Watches until a step that fits. */
async function untilStep(
  { executions }: Clients,
  id: string,
  fits: (step: { state: State; waitingReason: string }) => boolean,
): Promise<string> {
  for await (const { event } of executions.watchExecution({ id }, { timeoutMs: DEADLINE_MS })) {
    if (event.case === 'state' && fits(event.value)) return event.value.waitingReason;
  }
  throw new Error('the stream ended without the step');
}

test('when all agents go at once their work is kept for them, every replica says so, and no more when most are back', async () => {
  const held: { identity: RawIdentity; id: string }[] = [];
  const links: RawLink[] = [];
  const join = async (identity: RawIdentity, id?: string) => {
    const ref = id === undefined ? [] : [{ ref: { executionId: id, attempt: 1 } }];
    const joinToken = identity.agentId === '' ? await atAgents.joinToken() : '';
    const link = await RawLink.join(atAgents.url, identity, { joinToken, name: `raw-${held.length}`, held: ref });
    links.push(link);
    return link;
  };
  for (let count = 0; count < 3; count++) {
    const identity = new RawIdentity();
    const link = await join(identity);
    const id = await create(atAgents.clients.executions, code('def handler(input):\n    return {}\n'));
    const { ref } = await link.next('assignment');
    link.send({ case: 'started', value: ref === undefined ? {} : { ref } });
    await untilState(elsewhere.clients.executions, id, State.RUNNING);
    held.push({ identity, id });
  }
  const [, , last] = held;
  const id = last?.id ?? '';
  for (const link of links.splice(0)) link.close();
  for (const { clients } of replicas) {
    const reason = await untilStep(clients, id, ({ waitingReason }) => waitingReason !== '');
    expect(reason).toMatch(
      /^agent raw-2 is gone together with most others; its work is kept for it until .*Z at most$/,
    );
    expect(await get(clients.executions, id)).toMatchObject({ state: State.RUNNING, waitingReason: reason });
    const { agents } = await clients.agents.listAgents({});
    expect(agents.map(({ state, brakeEndTime }) => [state, brakeEndTime !== undefined])).toEqual(
      Array(3).fill([AgentState.OFFLINE, true]),
    );
  }
  const wasBraked = new Set<Clients>();
  const released = replicas.map(({ clients }) => {
    const braked = Promise.withResolvers<void>();
    const reason = untilStep(clients, held[0]?.id ?? '', ({ waitingReason }) => {
      if (waitingReason !== '') braked.resolve();
      return waitingReason === '' && wasBraked.has(clients);
    });
    return { reason, braked: braked.promise.then(() => wasBraked.add(clients)) };
  });
  await Promise.all(released.map(({ braked }) => braked));
  // The others are not gone together any more, and the last one is for good.
  for (const { identity, id: heldId } of held.slice(0, 2)) await join(identity, heldId);
  let number = 0n;
  const beats = setInterval(() => {
    number++;
    for (const link of links) link.send({ case: 'heartbeat', value: { number } });
  }, 500);
  onTestFinished(() => clearInterval(beats));
  expect(await Promise.all(released.map(({ reason }) => reason))).toEqual(['', '']);
  await until('the last one to be given up', async () => {
    const { attempts } = await get(elsewhere.clients.executions, id);
    return attempts.length > 0;
  });
  const { agents } = await elsewhere.clients.agents.listAgents({});
  expect(agents.filter(({ brakeEndTime }) => brakeEndTime !== undefined)).toEqual([]);
  for (const { id: each } of held) await elsewhere.clients.executions.cancelExecution({ id: each });
  for (const link of links) link.close();
});
