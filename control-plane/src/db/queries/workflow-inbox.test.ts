import { randomUUID } from 'node:crypto';
import { WorkflowRun_State as State } from '@harrier/shared/gen/workflow';
import { beforeEach, expect, test, vi } from 'vitest';
import { startDatabase } from '../../test-support/real-database.ts';
import type { Sql } from '../sql.ts';
import { uuidv7 } from '../uuid.ts';
import { insertSignal, insertWord, listWords } from './workflow-inbox.ts';
import { insertWorkflowRun } from './workflow-runs.ts';
import { type NewStep, storeSteps } from './workflow-steps.ts';

const { cold: sql } = await startDatabase();
const [tenantId, replicaId] = [randomUUID(), randomUUID()];
let runId = '';

function step(phase: string, more: Partial<NewStep> = {}): NewStep {
  const node = { path: 'ask', instance: { phase }, input_json: null, output_json: null, execution_id: null };
  return {
    ...{ run_id: runId, tenant_id: tenantId, replica_id: replicaId, state: State.RUNNING, root: {}, next_turn: 1 },
    ...{ revision: 1, log_sequence: 1, output_json: null, start_time: null, end_time: null, log: [], heard: [] },
    ...{ nodes: [node] },
    ...more,
  };
}

/** @returns its id */
async function newRun(): Promise<string> {
  const { row } = await insertWorkflowRun(sql, {
    ...{ id: uuidv7(), tenantId, workflowId: randomUUID(), workflow: 'w', version: '1.0.0', pinned: {} },
    ...{ state: State.PENDING, inputJson: '{}', labels: undefined, idempotencyKey: undefined, replicaId },
  });
  return row.id;
}

beforeEach(async () => {
  runId = await newRun();
  await storeSteps(sql, [step('signal')]);
});

const words = () => listWords(sql, [{ id: runId, tenant_id: tenantId }]);
const signal = (by: string, path = 'ask') =>
  insertSignal(sql, { tenantId, runId, path, payload: { json: JSON.stringify({ by }) } });

/**
 * Holds the run as a step does that is not committed yet, until all who begin something wait for it.
 * @param work is a part of the step
 */
async function behindStep(
  begin: () => Promise<boolean>[],
  work: (transaction: Sql) => Promise<unknown> = async () => undefined,
): Promise<boolean[]> {
  let begun: Promise<boolean>[] = [];
  await sql.begin(async (transaction) => {
    await transaction`SELECT FROM workflow_runs WHERE tenant_id = ${tenantId} AND id = ${runId} FOR NO KEY UPDATE`;
    begun = begin();
    await vi.waitFor(
      async () => {
        const [row] = await transaction<{ waiting: number }[]>`
          SELECT count(DISTINCT pid)::int AS waiting FROM pg_locks WHERE NOT granted`;
        expect(row?.waiting).toBe(begun.length);
      },
      { timeout: 60_000 },
    );
    await work(transaction as unknown as Sql);
  });
  return await Promise.all(begun);
}

test('of several signals at once, one is written down', async () => {
  const callers = ['ada', 'grace', 'joan'];
  const said = await behindStep(() => callers.map((by) => signal(by)));
  expect(said.toSorted()).toEqual([false, false, true]);
  const payload = { json: JSON.stringify({ by: callers[said.indexOf(true)] }) };
  expect(await words()).toMatchObject([{ event: { type: 'signalled', path: 'ask', payload } }]);
});

test('a signal that comes while a step ends the wait is refused', async () => {
  const ends = (transaction: Sql) => storeSteps(transaction, [step('none')]);
  expect(await behindStep(() => [signal('late')], ends)).toEqual([false]);
  expect(await words()).toEqual([]);
});

test('other words, and signals for other nodes, do not stand in the way', async () => {
  await insertWord(sql, { tenantId, runId, event: { type: 'retry' } });
  expect([await signal('ada'), await signal('grace'), await signal('ada', 'other')]).toEqual([true, false, false]);
  expect(await insertSignal(sql, { tenantId: randomUUID(), runId, path: 'ask', payload: { json: '{}' } })).toBe(false);
  expect(await words()).toHaveLength(2);
  expect(await listWords(sql, [{ id: runId, tenant_id: randomUUID() }])).toEqual([]);
});

test('a step takes out only words for its own run', async () => {
  await insertWord(sql, { tenantId, runId, event: { type: 'retry' } });
  const [word] = await words();
  const other = await newRun();
  const heard = [Number(word?.id)];
  expect(await storeSteps(sql, [step('signal', { run_id: other, heard })])).toEqual([true]);
  expect(await words()).toHaveLength(1);
  expect(await storeSteps(sql, [step('signal', { heard })])).toEqual([true]);
  expect(await words()).toEqual([]);
});
