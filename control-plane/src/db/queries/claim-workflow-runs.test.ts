import { randomUUID } from 'node:crypto';
import { WorkflowRun_State as State } from '@harrier/shared/gen/workflow';
import { beforeEach, expect, test } from 'vitest';
import { startDatabase } from '../../test-support/real-database.ts';
import { uuidv7 } from '../uuid.ts';
import { claimWorkflowRun, lookForWorkflowRuns, parkWorkflowRun } from './claim-workflow-runs.ts';
import { insertWord } from './workflow-inbox.ts';
import { insertWorkflowRun } from './workflow-runs.ts';
import { type NewStep, storeSteps } from './workflow-steps.ts';

const { cold: sql } = await startDatabase();
const tenantId = randomUUID();
const [living, dead] = [randomUUID(), randomUUID()];
await sql`INSERT INTO replicas (id, name) VALUES (${living}, 'living')`;

beforeEach(async () => {
  await sql`TRUNCATE workflow_runs, workflow_inbox, workflow_nodes, workflow_log, events`;
});

async function runOf(replicaId: string): Promise<string> {
  const { row } = await insertWorkflowRun(sql, {
    ...{ id: uuidv7(), tenantId, workflowId: randomUUID(), workflow: 'w', version: '1.0.0', pinned: {} },
    ...{ state: State.PENDING, inputJson: '{}', labels: undefined, idempotencyKey: undefined, replicaId },
  });
  return row.id;
}

function step(runId: string, replicaId: string, more: Partial<NewStep> = {}): NewStep {
  return {
    ...{ run_id: runId, tenant_id: tenantId, replica_id: replicaId, state: State.RUNNING, root: {}, next_turn: 1 },
    ...{
      revision: 1,
      log_sequence: 1,
      output_json: null,
      start_time: null,
      end_time: null,
      nodes: [],
      log: [],
      heard: [],
    },
    ...more,
  };
}

const look = (known: string[] = [], limit = 10) => lookForWorkflowRuns(sql, { replicaId: living, known, limit });
const claimed = async () => (await look()).claimed.map(({ id }) => id);
const park = (id: string, inMs: number) =>
  parkWorkflowRun(sql, { tenantId, id, replicaId: living, wakeTime: new Date(Date.now() + inMs) });

test('runs are taken whose time has come, or whose replica is gone; those of a living one are not', async () => {
  const [due, later, orphan] = [await runOf(living), await runOf(living), await runOf(dead)];
  await runOf(living);
  await parkWorkflowRun(sql, { tenantId, id: due, replicaId: living, wakeTime: new Date(0) });
  await parkWorkflowRun(sql, { tenantId, id: later, replicaId: living, wakeTime: new Date(Date.now() + 3_600_000) });
  expect((await claimed()).toSorted()).toEqual([due, orphan].toSorted());
  expect(await claimed()).toEqual([]);
});

test('a word is for whoever looks next, also for a run that has ended and when its writer died at once', async () => {
  const [asleep, ended] = [await runOf(living), await runOf(dead)];
  await parkWorkflowRun(sql, { tenantId, id: asleep, replicaId: living, wakeTime: undefined });
  await storeSteps(sql, [step(ended, dead, { state: State.FAILED, end_time: new Date().toISOString() })]);
  expect(await claimed()).toEqual([]);
  for (const runId of [asleep, ended]) await insertWord(sql, { tenantId, runId, event: { type: 'retry' } });
  expect((await claimed()).toSorted()).toEqual([asleep, ended].toSorted());
});

test('a replica finds runs of its own that it does not know, and those for which there is a word', async () => {
  const [known, lost, ended] = [await runOf(living), await runOf(living), await runOf(living)];
  await storeSteps(sql, [step(ended, living, { state: State.FAILED, end_time: new Date().toISOString() })]);
  expect(await look([known])).toMatchObject({ own: [{ id: lost }], heard: [] });
  for (const runId of [known, ended]) await insertWord(sql, { tenantId, runId, event: { type: 'retry' } });
  const { own, heard } = await look();
  expect(own.map(({ id }) => id).toSorted()).toEqual([known, lost].toSorted());
  expect(heard.map(({ id }) => id).toSorted()).toEqual([known, ended].toSorted());
});

test('a look tells when the next run is due, and whether more are', async () => {
  expect(await look()).toMatchObject({ more: false, nextInMs: undefined });
  const due = await Promise.all(Array.from({ length: 3 }, () => runOf(living)));
  for (const id of due) await park(id, -1);
  await park(await runOf(living), 60_000);
  await park(await runOf(living), 3_600_000);
  const first = await look([], 2);
  expect(first).toMatchObject({ more: true, claimed: { length: 2 } });
  expect(first.nextInMs).toBeGreaterThan(0);
  expect(first.nextInMs).toBeLessThanOrEqual(60_000);
  expect(await look([], 2)).toMatchObject({ more: false, claimed: { length: 1 } });
});

test('a run that is said something to while it is left is to be taken again at once', async () => {
  const [silent, spoken] = [await runOf(living), await runOf(living)];
  await insertWord(sql, { tenantId, runId: spoken, event: { type: 'retry' } });
  expect(await park(silent, 60_000)).toBe(false);
  expect(await park(spoken, 60_000)).toBe(true);
  expect(await claimed()).toEqual([spoken]);
});

test('a run has one replica: whoever asks is told which', async () => {
  const id = await runOf(living);
  expect(await claimWorkflowRun(sql, { tenantId, id, replicaId: dead })).toBe(living);
  await parkWorkflowRun(sql, { tenantId, id, replicaId: living, wakeTime: undefined });
  expect(await claimWorkflowRun(sql, { tenantId, id, replicaId: dead })).toBe(dead);
  expect(await claimWorkflowRun(sql, { tenantId, id: uuidv7(), replicaId: dead })).toBeUndefined();
});

test('a step of another replica is not stored; an end is told once; what is stored already stays', async () => {
  const id = await runOf(living);
  const node = { path: 'm', instance: { state: 'RUNNING' }, execution_id: null };
  expect(await storeSteps(sql, [step(id, dead)])).toEqual([false]);
  const first = step(id, living, { nodes: [{ ...node, input_json: '[1]', output_json: null }] });
  expect(await storeSteps(sql, [first])).toEqual([true]);
  const last = step(id, living, {
    ...{ state: State.SUCCEEDED, end_time: new Date().toISOString() },
    nodes: [{ ...node, input_json: null, output_json: '{}' }],
  });
  await storeSteps(sql, [last]);
  await storeSteps(sql, [last]);
  expect(await sql`SELECT input_json, output_json FROM workflow_nodes`).toMatchObject([
    { input_json: '[1]', output_json: '{}' },
  ]);
  expect(await sql`SELECT type FROM events WHERE type = 'workflow.finished'`).toHaveLength(1);
});
