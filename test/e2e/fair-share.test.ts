import type { Assignment } from '@harrier/shared/gen/link';
import { afterAll, expect, onTestFinished, test } from 'vitest';
import { connect } from '../../control-plane/src/db/connection.ts';
import type { Clients } from '../support/clients.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { create } from '../support/executions.ts';
import { ExternalPostgres } from '../support/postgres.ts';
import { code } from '../support/requests.ts';
import { StubAgent, type StubFacts } from '../support/stub-agent.ts';
import { Tenant } from '../support/tenant.ts';

const postgres = await ExternalPostgres.start();
afterAll(() => postgres.stop());
const controlPlane = await ControlPlane.start({ databaseUrl: postgres.url });
afterAll(() => controlPlane.stop());
const sql = connect({ url: postgres.url }, 1);
afterAll(() => sql.end());
const some = code('def handler(input):\n    return {}\n');
const FLOOD = 1_500;
const AT_ONCE = 100;
const CALM = 60;
/** Executions that the calm one has waiting at once. */
const WINDOW = 4;

async function flood(clients: Clients, fields: object): Promise<void> {
  let left = FLOOD;
  const one = async () => {
    while (left-- > 0) await create(clients.executions, { ...some, ...fields });
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
}

/** A tenant of its own: its callers, and an agent. */
async function tenant(name: string, facts: StubFacts) {
  const own = await Tenant.create(sql, name);
  const agent = await StubAgent.join(controlPlane, name, facts, undefined, await own.joinToken());
  onTestFinished(() => agent.leave());
  return { clients: controlPlane.clientsWith(own.apiKey), agent };
}

/**
 * Runs executions one after the other on an agent that does one at a time, a few of them waiting at once.
 * @returns for each how many others the agent was given while it waited
 */
async function waits(clients: Clients, agent: StubAgent, fields: object): Promise<number[]> {
  const createdAt = new Map<string, number>();
  const found: number[] = [];
  let given = 0;
  const next = async () => createdAt.set(await create(clients.executions, { ...some, ...fields }), given);
  for (let n = 0; n < WINDOW; n++) await next();
  while (found.length < CALM) {
    const assignment: Assignment = await agent.given();
    const since = createdAt.get(assignment.ref?.executionId ?? '');
    if (since !== undefined) {
      found.push(given - since);
      await next();
    }
    given++;
    agent.end(assignment);
  }
  return found;
}

function p95(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.ceil(values.length * 0.95) - 1] ?? 0;
}

test('a tenant waits no longer for its agents because another one floods the queue', async () => {
  const calm = await tenant('calm', { slots: 1 });
  const alone = p95(await waits(calm.clients, calm.agent, {}));
  const loud = await tenant('loud', { slots: 1 });
  const busy = (async () => {
    while (true) loud.agent.end(await loud.agent.given());
  })().catch(() => undefined);
  await flood(loud.clients, { priority: 1_000 });
  const beside = p95(await waits(calm.clients, calm.agent, {}));
  expect(beside).toBeLessThanOrEqual(2 * alone);
  loud.agent.leave();
  await busy;
});

test('a class waits at most twice as long because another one floods the same agent', async () => {
  const { clients, agent } = await tenant('both', { slots: 1 });
  const alone = p95(await waits(clients, agent, { taskClass: 'cpu_short' }));
  expect(alone).toBeGreaterThan(0);
  // It takes the agent until the queue is long.
  const first = create(clients.executions, { ...some, taskClass: 'cpu_long' });
  const assignment = await agent.given();
  await first;
  await flood(clients, { taskClass: 'cpu_long' });
  agent.end(assignment);
  const beside = p95(await waits(clients, agent, { taskClass: 'cpu_short' }));
  expect(beside).toBeLessThanOrEqual(2 * alone);
});
