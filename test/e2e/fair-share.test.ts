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
import { until } from '../support/wait.ts';

const postgres = await ExternalPostgres.start();
afterAll(() => postgres.stop());
const controlPlane = await ControlPlane.start({ databaseUrl: postgres.url });
afterAll(() => controlPlane.stop());
const sql = connect({ url: postgres.url }, 1);
afterAll(() => sql.end());
const some = code('def handler(input):\n    return {}\n');
const FLOOD = 1_500;
const AT_ONCE = 100;
/** Of the calm tenant: as many as the scheduler gives with one statement, which says nothing of the order within it. */
const CALM = 250;
/** Of the calm class. */
const CALM_RUNS = 60;
/** Executions that the calm class has waiting at once. */
const WINDOW = 4;

async function flood(clients: Clients, count: number, fields: object): Promise<void> {
  let left = count;
  const one = async () => {
    while (left-- > 0) await create(clients.executions, { ...some, ...fields });
  };
  await Promise.all(Array.from({ length: Math.min(count, AT_ONCE) }, one));
}

/** Callers of a tenant, and its agent. */
async function join(own: Tenant, name: string, facts: StubFacts) {
  const agent = await StubAgent.join(controlPlane, name, facts, undefined, await own.joinToken());
  onTestFinished(() => agent.leave());
  return { id: own.id, clients: controlPlane.clientsWith(own.apiKey), agent };
}

type Side = Awaited<ReturnType<typeof join>>;

/** Queues executions that no agent takes before `resume`. */
async function queueUp({ clients, agent }: Side, count: number, fields: object): Promise<void> {
  await clients.agents.drainAgent({ id: agent.identity.agentId });
  await flood(clients, count, fields);
}

/** Lets agents have work at one moment: no look at the queue finds room on some of them and not yet on the others. */
async function resume(...sides: Side[]): Promise<void> {
  await sql.begin(async (transaction) => {
    await transaction`LOCK TABLE execution_queue IN ACCESS EXCLUSIVE MODE`;
    await Promise.all(sides.map(({ clients, agent }) => clients.agents.resumeAgent({ id: agent.identity.agentId })));
  });
}

/** Waits until the agent has so many. @returns a function that ends them */
async function taken({ clients, agent }: Side, count: number): Promise<() => Promise<void>> {
  const assignments: Assignment[] = [];
  while (assignments.length < count) assignments.push(await agent.given());
  return async () => {
    for (const assignment of assignments) agent.end(assignment);
    await until('all of them to have ended', async () => {
      const answer = await clients.agents.getAgent({ id: agent.identity.agentId });
      return answer.agent?.activeExecutions === 0;
    });
  };
}

/** For each execution of a tenant that is under way how many the control plane had given to anybody when it was given, with itself. */
async function turnsOf(side: Side): Promise<number[]> {
  const rows = await sql<{ turn: number }[]>`
    SELECT turn FROM (
      SELECT tenant_id, count(*) OVER (ORDER BY assign_time)::int AS turn FROM executions WHERE end_time IS NULL
    ) AS given WHERE tenant_id = ${side.id}`;
  return rows.map(({ turn }) => turn);
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
  while (found.length < CALM_RUNS) {
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

test('a tenant waits at most twice as long because another one floods the queue', async () => {
  const tenants = [await Tenant.create(sql, 'one'), await Tenant.create(sql, 'other')];
  // It would be first by its id as well as by its priority and by when it came: only turns keep it back.
  const [first, second] = tenants.toSorted((a, b) => (a.id < b.id ? -1 : 1)) as [Tenant, Tenant];
  const loud = await join(first, 'loud', { slots: FLOOD });
  const calm = await join(second, 'calm', { slots: CALM });

  await queueUp(calm, CALM, {});
  await resume(calm);
  const endCalm = await taken(calm, CALM);
  const alone = p95(await turnsOf(calm));
  expect(alone).toBeGreaterThan(0);
  await endCalm();

  await queueUp(loud, FLOOD, { priority: 1_000 });
  await queueUp(calm, CALM, {});
  await resume(loud, calm);
  const ends = [await taken(loud, FLOOD), await taken(calm, CALM)];
  expect(p95(await turnsOf(calm))).toBeLessThanOrEqual(2 * alone);
  for (const end of ends) await end();
});

test('a class waits at most twice as long because another one floods the same agent', async () => {
  const { clients, agent } = await join(await Tenant.create(sql, 'both'), 'both', { slots: 1 });
  const alone = p95(await waits(clients, agent, { taskClass: 'cpu_short' }));
  expect(alone).toBeGreaterThan(0);
  // It takes the agent until the queue is long.
  const first = create(clients.executions, { ...some, taskClass: 'cpu_long' });
  const assignment = await agent.given();
  await first;
  await flood(clients, FLOOD, { taskClass: 'cpu_long' });
  agent.end(assignment);
  const beside = p95(await waits(clients, agent, { taskClass: 'cpu_short' }));
  expect(beside).toBeLessThanOrEqual(2 * alone);
});
