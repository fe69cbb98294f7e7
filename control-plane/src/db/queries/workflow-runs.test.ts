import { randomUUID } from 'node:crypto';
import { type LabelSelector, matchesLabels, parseLabelSelector } from '@harrier/shared';
import { WorkflowRun_State as State } from '@harrier/shared/gen/workflow';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { startDatabase } from '../../test-support/real-database.ts';
import { uuidv7 } from '../uuid.ts';
import {
  insertWorkflowRun,
  listNodesOfRuns,
  listWorkflowLog,
  listWorkflowNodes,
  listWorkflowRuns,
  readNodeOutputs,
  readWorkflowRun,
  type WorkflowRunFilter,
} from './workflow-runs.ts';

const { cold: sql } = await startDatabase();

interface Given {
  tenantId: string;
  workflow?: string;
  state?: State;
  labels?: Record<string, string>;
  daysAgo?: number;
}

/** @returns its id */
async function insert({
  tenantId,
  workflow = 'w',
  state = State.RUNNING,
  labels,
  daysAgo = 0,
}: Given): Promise<string> {
  const { row } = await insertWorkflowRun(sql, {
    ...{ id: uuidv7(), tenantId, workflowId: randomUUID(), workflow, version: '1.0.0', pinned: {} },
    ...{ state, inputJson: '{}', labels, idempotencyKey: undefined, replicaId: randomUUID() },
  });
  const ended = state !== State.PENDING && state !== State.RUNNING;
  await sql`UPDATE workflow_runs SET create_time = now() - ${daysAgo} * interval '1 day',
    end_time = ${ended ? sql`now()` : null} WHERE id = ${row.id}`;
  return row.id;
}

async function list(tenantId: string, filter: Partial<WorkflowRunFilter> = {}): Promise<string[]> {
  const none = {
    workflow: undefined,
    state: undefined,
    labels: [],
    createTimeFrom: undefined,
    createTimeTo: undefined,
  };
  const rows = await listWorkflowRuns(sql, { tenantId, limit: 100, before: undefined, ...none, ...filter });
  return rows.map(({ id }) => id);
}

test('runs are listed newest first, of one tenant, page by page under filters', async () => {
  const tenantId = randomUUID();
  await insert({ tenantId: randomUUID() });
  const ids: string[] = [];
  for (let n = 0; n < 9; n++) ids.unshift(await insert({ tenantId, labels: { third: String(n % 3 === 0) } }));
  expect(await list(tenantId)).toEqual(ids);
  const labels = parseLabelSelector('third=true', 'label_selector');
  const thirds = ids.filter((_, place) => (ids.length - 1 - place) % 3 === 0);
  const paged: string[] = [];
  for (let page = await list(tenantId, { labels, limit: 2 }); page.length > 0; ) {
    paged.push(...page);
    page = await list(tenantId, { labels, limit: 2, before: page.at(-1) });
  }
  expect(paged).toEqual(thirds);
});

test('by workflow, state and time', async () => {
  const tenantId = randomUUID();
  const old = await insert({ tenantId, workflow: 'a', state: State.FAILED, daysAgo: 3 });
  const failed = await insert({ tenantId, workflow: 'a', state: State.FAILED, daysAgo: 1 });
  const running = await insert({ tenantId, workflow: 'b', state: State.RUNNING });
  expect(await list(tenantId, { workflow: 'a' })).toEqual([failed, old]);
  expect(await list(tenantId, { state: State.FAILED })).toEqual([failed, old]);
  expect(await list(tenantId, { state: State.RUNNING })).toEqual([running]);
  const twoDaysAgo = new Date(Date.now() - 2 * 86_400_000);
  expect(await list(tenantId, { state: State.FAILED, createTimeFrom: twoDaysAgo })).toEqual([failed]);
  expect(await list(tenantId, { createTimeTo: twoDaysAgo })).toEqual([old]);
});

test('a list is without what may be large', async () => {
  const tenantId = randomUUID();
  const id = await insert({ tenantId });
  const root = { state: 'RUNNING', variables: { large: 'x' } };
  await sql`UPDATE workflow_runs SET input_json = '{"large": 1}', output_json = '{}', root = ${sql.json(root)} WHERE id = ${id}`;
  const filter = {
    workflow: undefined,
    state: undefined,
    labels: [],
    createTimeFrom: undefined,
    createTimeTo: undefined,
  };
  const rows = await listWorkflowRuns(sql, { tenantId, limit: 10, before: undefined, ...filter });
  expect(rows).toMatchObject([{ id, input_json: '', output_json: null, root: { state: 'RUNNING' } }]);
  expect(JSON.stringify(rows)).not.toContain('large');
  expect(await readWorkflowRun(sql, tenantId, id)).toMatchObject({
    input_json: '{"large": 1}',
    output_json: '{}',
    root,
  });
});

test('a selector finds in the database what it matches', async () => {
  const tenantId = randomUUID();
  const value = fc.constantFrom('', 'x', 'y', '-3', '7', '007', '7.5', '99999999999999999999');
  const labelSets = fc.sample(fc.dictionary(fc.constantFrom('a', 'b'), value), 40);
  const given = [undefined, ...labelSets];
  const ids: string[] = [];
  for (const labels of given) ids.push(await insert({ tenantId, ...(labels === undefined ? {} : { labels }) }));
  const key = fc.constantFrom('a', 'b', 'c');
  const requirement = fc.oneof(
    fc
      .tuple(
        key,
        fc.constantFrom('in', 'notin'),
        fc.array(fc.constantFrom('x', 'y', '7', ''), { minLength: 1, maxLength: 3 }),
      )
      .map(([of, operator, values]) => `${of} ${operator} (${values.join(', ')})`),
    fc.tuple(fc.constantFrom('', '!'), key).map(([not, of]) => `${not}${of}`),
    fc.tuple(key, fc.constantFrom('>', '<'), fc.integer({ min: -5, max: 9 })).map((parts) => parts.join(' ')),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(requirement, { maxLength: 3 }), async (parts) => {
      const labels: LabelSelector = parseLabelSelector(parts.join(', '), 'label_selector');
      const matching = ids.filter((_, place) => matchesLabels(labels, given[place] ?? {}));
      expect(await list(tenantId, { labels })).toEqual(matching.toReversed());
    }),
  );
});

test('nodes, their outputs and the log of a run are those of its tenant', async () => {
  const [tenantId, other] = [randomUUID(), randomUUID()];
  const id = await insert({ tenantId });
  await sql`INSERT INTO workflow_nodes (tenant_id, run_id, path, instance, output_json, revision)
    VALUES (${tenantId}, ${id}, 'a', '{}', '{"n": 1}', 1)`;
  await sql`INSERT INTO workflow_log (tenant_id, run_id, sequence, time, level, path, message)
    VALUES (${tenantId}, ${id}, 1, now(), 2, 'a', 'begins')`;
  const seenBy = async (tenant: string) => {
    const nodes = await listWorkflowNodes(sql, tenant, id);
    const restored = await listNodesOfRuns(sql, [{ id, tenant_id: tenant }]);
    const outputs = await readNodeOutputs(sql, tenant, id, ['a']);
    const log = await listWorkflowLog(sql, tenant, id, { after: 0, minLevel: 0, limit: 10 });
    return [nodes.length, restored.length, outputs.size, log.length];
  };
  expect(await seenBy(tenantId)).toEqual([1, 1, 1, 1]);
  expect(await seenBy(other)).toEqual([0, 0, 0, 0]);
  expect(await listWorkflowNodes(sql, tenantId, id)).toMatchObject([{ path: 'a', output_json: null, output_bytes: 8 }]);
});
