import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Assignment } from '@harrier/shared/gen/link';
import { afterAll, describe, expect, onTestFinished, test } from 'vitest';
import { connect } from '../../control-plane/src/db/connection.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { create } from '../support/executions.ts';
import { ExternalPostgres } from '../support/postgres.ts';
import { code } from '../support/requests.ts';
import { StubAgent } from '../support/stub-agent.ts';
import { Tenant } from '../support/tenant.ts';
import { REPOSITORY } from '../support/workspace.ts';

// Two replicas, each with an agent: limits hold over both.
const postgres = await ExternalPostgres.start();
afterAll(() => postgres.stop());
const replicas = await Promise.all([1, 2].map(() => ControlPlane.start({ databaseUrl: postgres.url })));
afterAll(() => Promise.all(replicas.map((replica) => replica.stop())));
const sql = connect({ url: postgres.url }, 1);
afterAll(() => sql.end());
const some = code('def handler(input):\n    return {}\n');
const EXECUTIONS = 60;

/** Has executions started at both replicas and ended by their agents. @returns how many were under way at once, at most */
async function mostAtOnce(name: string, tenant: Tenant, fields: object): Promise<number> {
  const agents = await Promise.all(
    replicas.map(async (replica, n) => {
      const agent = await StubAgent.join(replica, `${name}-${n}`, { slots: 50 }, undefined, await tenant.joinToken());
      onTestFinished(() => agent.leave());
      return agent;
    }),
  );
  const running: { agent: StubAgent; assignment: Assignment }[] = [];
  let given = 0;
  let most = 0;
  const done = Promise.withResolvers<void>();
  // An agent is told of an attempt after the database is: what it has is under way.
  const serve = async (agent: StubAgent) => {
    while (given < EXECUTIONS) {
      running.push({ agent, assignment: await agent.given() });
      most = Math.max(most, running.length);
      if (++given === EXECUTIONS) done.resolve();
      const oldest = running.shift();
      if (oldest !== undefined) oldest.agent.end(oldest.assignment);
    }
  };
  for (const agent of agents) serve(agent).catch(() => undefined);
  const clients = replicas.map((replica) => replica.clientsWith(tenant.apiKey));
  const ids = Array.from({ length: EXECUTIONS }, (_, n) => {
    const { executions } = clients[n % clients.length] ?? {};
    return executions === undefined ? '' : create(executions, { ...some, ...fields });
  });
  await Promise.all(ids);
  await done.promise;
  const [row] = await sql<{ most: number }[]>`
    WITH steps AS (
      SELECT xid, id, CASE WHEN type = 'execution.assigned' THEN 1 ELSE -1 END AS step FROM events
      WHERE tenant_id = ${tenant.id} AND type IN ('execution.assigned', 'execution.finished')
    )
    SELECT max(under_way)::int AS most FROM (SELECT sum(step) OVER (ORDER BY xid, id) AS under_way FROM steps) AS sums`;
  return Math.max(most, row?.most ?? 0);
}

test('no more executions with a key are under way than may be, at whatever replica', async () => {
  const tenant = await Tenant.create(sql, 'keyed');
  expect(await mostAtOnce('keyed', tenant, { concurrency: { key: 'k', maxActive: 3 } })).toBe(3);
});

describe('a tenant that has a quota of its own', async () => {
  const tenant = await Tenant.create(sql, 'research');

  test('has no more executions under way, at whatever replica', async () => {
    await sql`UPDATE tenants SET max_active = 2 WHERE id = ${tenant.id}`;
    expect(await mostAtOnce('quota', tenant, {})).toBe(2);
  });

  test('has another one from the statement on that docs/scheduling.md shows', async () => {
    const page = readFileSync(join(REPOSITORY, 'docs/scheduling.md'), 'utf8');
    const statement = /^```sql\n([^`]+)```$/m.exec(page)?.[1] ?? '';
    expect(statement).toContain('max_active = 4,');
    await sql.unsafe(statement);
    expect(await mostAtOnce('another-quota', tenant, {})).toBe(4);
  });
});
