import { randomUUID } from 'node:crypto';
import { beforeEach, expect, test } from 'vitest';
import { claimWaiting } from '../../test-support/claim-waiting.ts';
import { startDatabase } from '../../test-support/real-database.ts';
import { insertExecution } from '../../test-support/stored-executions.ts';
import type { WaitingExecution } from './claim-executions.ts';

const { cold: sql } = await startDatabase();
const tenant = { tenant_id: randomUUID() };

beforeEach(async () => {
  await sql`DELETE FROM execution_queue`;
});

function all(agentId: string) {
  return async (waiting: WaitingExecution[]) => waiting.map(({ id }) => ({ id, agentId }));
}

test('replicas that claim at once share what waits: nobody gets what another one has', async () => {
  const ids = await Promise.all(Array.from({ length: 100 }, () => insertExecution(sql, tenant)));
  const claims = await Promise.all(Array.from({ length: 5 }, () => claimWaiting(sql, all(randomUUID()))));
  const claimed = claims.flatMap((page) => page.claimed.map(({ id, attempt }) => `${id} ${attempt}`));
  expect(claimed.toSorted()).toEqual(ids.map((id) => `${id} 1`).toSorted());
  expect((await claimWaiting(sql, all(randomUUID()))).waiting).toEqual([]);
});

test('what a replica looks at and does not take is there for another one at the same time', async () => {
  const replicaId = randomUUID();
  const id = await insertExecution(sql, { ...tenant, replica_id: replicaId });
  const agentId = randomUUID();
  await claimWaiting(sql, async () => {
    const { claimed } = await claimWaiting(sql, all(agentId));
    expect(claimed).toMatchObject([{ id, agentId, attempt: 1, follower: replicaId }]);
    return [];
  });
});

test('what was claimed or cancelled since it was seen is passed over', async () => {
  const [kept, gone] = [await insertExecution(sql, tenant), await insertExecution(sql, tenant)];
  const { waiting, claimed } = await claimWaiting(sql, async (seen) => {
    await sql`DELETE FROM execution_queue WHERE execution_id = ${gone}`;
    return await all(randomUUID())(seen);
  });
  expect(waiting).toHaveLength(2);
  expect(claimed.map(({ id }) => id)).toEqual([kept]);
});

test('what was put back for later since it was seen is not claimed before', async () => {
  const id = await insertExecution(sql, tenant);
  const { claimed } = await claimWaiting(sql, async (seen) => {
    await sql`UPDATE execution_queue SET not_before = now() + interval '1 hour' WHERE execution_id = ${id}`;
    return await all(randomUUID())(seen);
  });
  expect(claimed).toEqual([]);
});
