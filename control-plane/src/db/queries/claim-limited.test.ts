import { randomUUID } from 'node:crypto';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { startDatabase } from '../../test-support/real-database.ts';
import { finishedRow, insertExecution } from '../../test-support/stored-executions.ts';
import { uuidv7 } from '../uuid.ts';
import { ensureTenant } from './api-keys.ts';
import { assignLimitedClaims, type LimitedClaim, readActive } from './claim-limited.ts';
import { finishExecutions } from './finish-executions.ts';

const { cold: sql } = await startDatabase();
const tenantId = await ensureTenant(sql, uuidv7(), 'default');
const agentId = randomUUID();
await sql`
  INSERT INTO agents (id, tenant_id, name, public_key, version, hardware, isolation, slots)
  VALUES (${agentId}, ${tenantId}, 'one', 'key', '', '', 0, 1)`;

async function waiting(count: number, key: string | null): Promise<string[]> {
  const fields = { tenant_id: tenantId, concurrency_key: key };
  return await Promise.all(Array.from({ length: count }, () => insertExecution(sql, fields)));
}
const claim = (id: string, fields: Partial<LimitedClaim> = {}): LimitedClaim => ({
  id,
  agentId,
  reservation: null,
  tenantId,
  key: undefined,
  maxActive: Number.POSITIVE_INFINITY,
  hasQuota: false,
  ...fields,
});

test('replicas that claim at once give out no more of a key than may be under way, and all of them', async () => {
  const ids = await waiting(40, 'key:a');
  // Each replica takes some of what the others take, in an order of its own.
  const claimed = await Promise.all(
    Array.from({ length: 8 }, async (_, n) => {
      const own = ids.slice(n * 4, n * 4 + 12).toSorted(() => (n % 2 === 0 ? 1 : -1));
      const claims = own.map((id) => claim(id, { key: 'key:a', maxActive: 7 }));
      return await assignLimitedClaims(sql, claims, State.ASSIGNED, 0);
    }),
  );
  expect(claimed.flatMap(({ assigned }) => assigned)).toHaveLength(7);
  expect(await readActive(sql, tenantId, 'key:a')).toMatchObject({ active: 7 });
  for (const { left } of claimed) for (const of of left.values()) expect(of).toBe('key');

  const [ended] = claimed.flatMap(({ assigned }) => assigned);
  await finishExecutions(sql, [finishedRow({ tenant_id: tenantId, id: ended?.id ?? '', agent_id: agentId })]);
  const rest = ids.map((id) => claim(id, { key: 'key:a', maxActive: 7 }));
  expect((await assignLimitedClaims(sql, rest, State.ASSIGNED, 0)).assigned).toHaveLength(1);
});

test('each goes by its own limit of a key', async () => {
  const [first = '', second = '', third = ''] = await waiting(3, 'key:b');
  const claims = [
    claim(first, { key: 'key:b', maxActive: 5 }),
    claim(second, { key: 'key:b', maxActive: 1 }),
    claim(third, { key: 'key:b', maxActive: 2 }),
  ];
  const { assigned, left } = await assignLimitedClaims(sql, claims, State.ASSIGNED, 0);
  expect(assigned.map(({ id }) => id).toSorted()).toEqual([first, third].toSorted());
  expect([...left.keys()]).toEqual([second]);
});

test('the quota of a tenant counts all that it has under way, and its own stands before that of the control plane', async () => {
  const { active } = await readActive(sql, tenantId, undefined);
  const ids = await waiting(6, null);
  const claims = () => ids.map((id) => claim(id, { hasQuota: true }));
  const first = await assignLimitedClaims(sql, claims(), State.ASSIGNED, active + 2);
  expect(first.assigned).toHaveLength(2);
  expect(new Set(first.left.values())).toEqual(new Set(['tenant']));
  await sql`UPDATE tenants SET max_active = ${active + 3} WHERE id = ${tenantId}`;
  expect((await assignLimitedClaims(sql, claims(), State.ASSIGNED, active + 2)).assigned).toHaveLength(1);
  expect(await readActive(sql, tenantId, undefined)).toEqual({ active: active + 3, maxActive: active + 3 });
  await sql`UPDATE tenants SET max_active = 0 WHERE id = ${tenantId}`;
  expect((await assignLimitedClaims(sql, claims(), State.ASSIGNED, active + 2)).assigned).toHaveLength(3);
});
