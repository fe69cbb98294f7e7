import { randomUUID } from 'node:crypto';
import { create, fromJson, type JsonValue } from '@bufbuild/protobuf';
import { ListWorkflowRunsRequestSchema, RunWorkflowRequestSchema, WorkflowSchema } from '@harrier/shared/gen/workflow';
import { afterAll, expect, test, vi } from 'vitest';
import { GroupCommit } from '../db/group-commit.ts';
import { awaitsSignal } from '../db/queries/workflow-inbox.ts';
import { readWorkflowRun } from '../db/queries/workflow-runs.ts';
import { type NewStep, storeSteps } from '../db/queries/workflow-steps.ts';
import { silent, startDatabase } from '../test-support/real-database.ts';
import { WorkflowRunner } from '../workflow/workflow-runner.ts';
import { untilDatabaseAnswers } from './while-away.ts';
import { WorkflowService } from './workflow-service.ts';

const { cold: sql, pools } = await startDatabase();
const tenantId = randomUUID();
const replicaId = randomUUID();
const runner: WorkflowRunner = new WorkflowRunner({
  ...{
    sql,
    replicaId,
    whileAway: untilDatabaseAnswers,
    onChanged: () => undefined,
    onEnded: () => undefined,
    logger: silent,
  },
  steps: new GroupCommit({ write: (steps: NewStep[]) => storeSteps(sql, steps), concurrency: 1, maxItems: 10 }),
  // The workflows of these tests only wait.
  executions: { run: () => Promise.reject(new Error('nothing runs')), cancel: async () => undefined },
  readOutput: async () => undefined,
  workflowsOf: (tenant, ids) => service.workflowsOf(tenant, ids),
  checkInput: () => undefined,
});
afterAll(() => runner.stop());
const service: WorkflowService = new WorkflowService({ sql, replicaId, runner, tell: () => undefined });

/** Registers a workflow that waits for a word, and runs others: `name` or `name@version`. */
async function register(name: string, version: string, within: string[] = []): Promise<void> {
  const nodes: JsonValue[] = within.map((other, i) => {
    const [of = '', exactly = ''] = other.split('@');
    return { id: `w${i}`, workflow: { name: of, version: exactly } };
  });
  const workflow = fromJson(WorkflowSchema, { name, version, nodes: [{ id: 's', signal: {} }, ...nodes] });
  await service.create(tenantId, workflow);
}

async function statementsOf(work: () => Promise<unknown>): Promise<number> {
  let statements = 0;
  for (const { observer } of pools) observer.onEnd(() => statements++);
  await work();
  return statements;
}

test('the versions of workflows within others are fixed when a run is accepted, the latest and exact ones', async () => {
  await register('leaf', '1.0.0');
  await register('middle', '1.0.0', ['leaf', 'leaf@1.0.0']);
  await register('leaf', '1.1.0');
  await register('outer', '1.0.0', ['middle', 'leaf@1.1.0']);
  const ids = await sql<{ id: string; of: string }[]>`SELECT id, name || '@' || version AS of FROM workflows`;
  const idOf = (of: string) => ids.find((row) => row.of === of)?.id;
  const run = await service.run(tenantId, create(RunWorkflowRequestSchema, { name: 'outer' }));
  expect((await readWorkflowRun(sql, tenantId, run.id))?.pinned).toEqual({
    'middle@': idOf('middle@1.0.0'),
    'leaf@': idOf('leaf@1.1.0'),
    'leaf@1.0.0': idOf('leaf@1.0.0'),
    'leaf@1.1.0': idOf('leaf@1.1.0'),
  });
});

test('what is not there, and circles, are refused with the path', async () => {
  await register('first', '1.0.0');
  await register('second', '1.0.0', ['first']);
  await expect(register('first', '2.0.0', ['second'])).rejects.toThrow(
    'workflow.nodes[1].workflow: workflows run each other in a circle: first → second → first',
  );
  await expect(register('third', '1.0.0', ['first', 'first@9.0.0'])).rejects.toThrow(
    'workflow.nodes[2].workflow: there is no workflow "first" 9.0.0',
  );
});

test('however many workflows are within one, those of a level are read at once', async () => {
  const names = Array.from({ length: 30 }, (_, n) => `many-${n}`);
  for (const name of names) await register(name, '1.0.0');
  const none = await statementsOf(() => register('none', '1.0.0'));
  expect(await statementsOf(() => register('all', '1.0.0', names))).toBe(none + 1);
  expect(await statementsOf(() => register('twice', '1.0.0', ['all', ...names]))).toBe(none + 1);
  expect(await statementsOf(() => register('deep', '1.0.0', ['twice']))).toBe(none + 2);
});

test('of two signals at once one is taken, and the other is told so', async () => {
  await register('asked', '1.0.0');
  const { id } = await service.run(tenantId, create(RunWorkflowRequestSchema, { name: 'asked' }));
  await vi.waitFor(() => expect(awaitsSignal(sql, tenantId, id, 's')).resolves.toBe(true), { timeout: 60_000 });
  const answers = await Promise.allSettled(
    ['ada', 'grace'].map((by) => service.signal(tenantId, id, 's', JSON.stringify({ by }))),
  );
  expect(answers.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected']);
  expect(answers.find(({ status }) => status === 'rejected')).toMatchObject({
    reason: { code: 'failed_precondition' },
  });
  const taken = answers[0]?.status === 'fulfilled' ? 'ada' : 'grace';
  await vi.waitFor(
    async () => expect((await service.runRow(tenantId, id)).output_json).toBe(JSON.stringify({ by: taken })),
    { timeout: 60_000 },
  );
});

test('a run is told with the outputs of its nodes when they are asked for, and in a list without its own', async () => {
  await register('answered', '1.0.0');
  const input = { case: 'inputJson' as const, value: '{"large": 1}' };
  const { id } = await service.run(tenantId, create(RunWorkflowRequestSchema, { name: 'answered', inputForm: input }));
  await vi.waitFor(() => expect(awaitsSignal(sql, tenantId, id, 's')).resolves.toBe(true), { timeout: 60_000 });
  await service.signal(tenantId, id, 's', '{"by": "ada"}');
  await vi.waitFor(async () => expect((await service.runRow(tenantId, id)).end_time).not.toBeNull(), {
    timeout: 60_000,
  });
  const outputsOf = async (outputs?: string[]) =>
    (await service.getRun(tenantId, id, outputs)).nodes.map(({ path, outputJson }) => [path, outputJson]);
  expect(await outputsOf()).toEqual([['s', '']]);
  expect(await outputsOf([])).toEqual([['s', '{"by":"ada"}']]);
  expect(await outputsOf(['other'])).toEqual([['s', '']]);
  expect(await service.getRun(tenantId, id)).toMatchObject({ inputJson: '{"large": 1}', outputJson: '{"by":"ada"}' });
  const { runs } = await service.listRuns(tenantId, create(ListWorkflowRunsRequestSchema, { workflow: 'answered' }));
  expect(runs).toMatchObject([{ id, inputJson: '', outputJson: '', nodes: [] }]);
});

test('a replica that knows none of the workflows of a run reads them at once, and later ones none of them', async () => {
  await register('part', '1.0.0');
  await register('part', '1.1.0');
  await register('parts', '1.0.0', ['part', 'part@1.0.0']);
  await register('whole', '1.0.0', ['parts', 'part@1.0.0']);
  const { id } = await service.run(tenantId, create(RunWorkflowRequestSchema, { name: 'whole' }));
  const row = await service.runRow(tenantId, id);
  // Its statements are none of those that are counted.
  await runner.stop();
  const cold = new WorkflowService({ sql, replicaId, runner, tell: () => undefined });
  const first = await statementsOf(async () => {
    const graph = await cold.graphOf(row);
    expect(graph.nodes.get('w0')?.body?.nodes.get('w1')?.body?.nodes.get('s')?.kind).toBe('signal');
  });
  expect([first, await statementsOf(() => cold.graphOf(row))]).toEqual([1, 0]);
  await expect(cold.workflowsOf(tenantId, [row.workflow_id, id])).rejects.toThrow(`workflow ${id} of a run is gone`);
});
