// biome-ignore-all lint/suspicious/noTemplateCurlyInString: that is what templates look like
import { fromJson } from '@bufbuild/protobuf';
import { WorkflowRun_State as State, WorkflowSchema } from '@harrier/shared/gen/workflow';
import { afterAll, expect, test } from 'vitest';
import { connect } from '../../control-plane/src/db/connection.ts';
import type { Clients } from '../support/clients.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { ExternalPostgres } from '../support/postgres.ts';
import { Stack } from '../support/stack.ts';
import { until } from '../support/wait.ts';
import { ended, getRun, python, startRun, statesOf, untilNode, workflow } from '../support/workflows.ts';

const RUNS = 100;
/** Executions of one run: a node, three items, a node. */
const EXECUTIONS = 5;

const postgres = await ExternalPostgres.start();
afterAll(() => postgres.stop());
const replicas = await Promise.all([1, 2].map(() => ControlPlane.start({ databaseUrl: postgres.url })));
const [first, second] = replicas as [ControlPlane, ControlPlane];
const stack = new Stack(first);
afterAll(async () => {
  await Promise.all(stack.agents.map((agent) => agent.remove()));
  for (const replica of replicas) if (replica.program.running) await replica.stop();
});
for (const urls of [
  [first.url, second.url],
  [second.url, first.url],
]) {
  await stack.addAgent({ serverUrl: urls.join(',') });
}

/** Kills a replica, and starts it again. */
async function killed(position: 0 | 1): Promise<void> {
  const replica = replicas[position] as ControlPlane;
  await replica.kill();
  replicas[position] = await replica.restarted();
  stack.controlPlane = replicas[0] as ControlPlane;
}

const sql = connect({ url: postgres.url }, 1);
afterAll(() => sql.end());

const clientsOf = (position: 0 | 1): Clients => (replicas[position] as ControlPlane).clients;

test('every run ends right although the replicas are killed in turn, and no node runs twice', async () => {
  const definition = workflow(
    {
      a: python('import time; time.sleep(0.2)\nreturn {"list": [input["n"], 1, 2]}'),
      m: {
        map: { items: 'nodes.a.output.list', ...python('import time; time.sleep(0.2)\nreturn {"v": input["item"]}') },
      },
      w: { wait: { duration: '1s' } },
      b: python('return {"sum": sum(r["v"] for r in input["m"])}'),
    },
    ['a -> m', 'm -> w', 'm -> b', 'w -> b'],
  );
  await clientsOf(0).workflows.createWorkflow({ workflow: fromJson(WorkflowSchema, definition) });
  const ids = await Promise.all(
    Array.from({ length: RUNS }, async (_, n) => {
      const inputForm = { case: 'inputJson' as const, value: JSON.stringify({ n }) };
      const { run } = await clientsOf((n % 2) as 0 | 1).workflows.runWorkflow({
        name: String(definition.name),
        inputForm,
      });
      return run?.id ?? '';
    }),
  );
  await untilNode(clientsOf(0), ids[0] ?? '', 'a', 'SUCCEEDED');
  await killed(0);
  await killed(1);
  for (const [n, id] of ids.entries()) {
    const run = await until(`run ${n} to end`, async () => {
      const found = await getRun(clientsOf(0), id);
      return found.endTime === undefined ? undefined : found;
    });
    expect(statesOf(run), run.error?.message ?? '').toMatchObject({ '': 'SUCCEEDED', 'm[2]': 'SUCCEEDED' });
    expect(JSON.parse(run.outputJson)).toEqual({ sum: n + 3 });
    expect(run.nodes.every(({ tries }) => tries === 1)).toBe(true);
    const { executions } = await clientsOf(1).executions.listExecutions({ labelSelector: `workflow-run=${id}` });
    expect(executions).toHaveLength(EXECUTIONS);
  }
  expect(await clientsOf(1).workflows.listWorkflowRuns({ state: State.RUNNING })).toMatchObject({ runs: [] });
});

test('a run that only waits is nobody’s, and goes on with a word at any replica', async () => {
  const id = await startRun(
    clientsOf(0),
    workflow({ s: { signal: {} }, t: { transform: { expression: 'nodes.s.output' } } }, ['s -> t']),
  );
  await untilNode(clientsOf(1), id, 's', 'WAITING');
  await clientsOf(1).workflows.signalWorkflowRun({ id, path: 's', payloadJson: '{"from": "elsewhere"}' });
  const run = await until('the run to end', async () => {
    const found = await getRun(clientsOf(0), id);
    return found.endTime === undefined ? undefined : found;
  });
  expect(statesOf(run)).toMatchObject({ '': 'SUCCEEDED', t: 'SUCCEEDED' });
  expect(JSON.parse(run.outputJson)).toEqual({ from: 'elsewhere' });
});

test('a run that is cancelled while it is pending starts nothing', async () => {
  const definition = workflow({ a: python('return {}'), b: python('return {}') }, ['a -> b']);
  const name = String(definition.name);
  await clientsOf(1).workflows.createWorkflow({ workflow: fromJson(WorkflowSchema, definition) });
  const { dataDirectory, port } = replicas[0] as ControlPlane;
  await replicas[0]?.stop();
  const known = await sql<{ id: string }[]>`SELECT id FROM replicas`;
  // It accepts the run, and ends before the first step is stored.
  const env = { HARRIER_FAILPOINTS: 'workflow-step-before-commit' };
  replicas[0] = await ControlPlane.start({ databaseUrl: postgres.url, dataDirectory, port, env });
  const id = await sql.begin(async (transaction) => {
    // Until the cancel is there, nobody finds out that it is dead, and takes the run.
    const dead = await transaction<{ id: string }[]>`
      SELECT id FROM replicas WHERE id <> ALL(${known.map((replica) => replica.id)}::uuid[]) FOR UPDATE`;
    expect(dead).toHaveLength(1);
    // It may end before it has answered.
    await clientsOf(0)
      .workflows.runWorkflow({ name })
      .catch(() => undefined);
    await until('the replica to end', () => replicas[0]?.program.running === false);
    const [run] = (await clientsOf(1).workflows.listWorkflowRuns({ workflow: name })).runs;
    const cancelled = await clientsOf(1).workflows.cancelWorkflowRun({ id: run?.id ?? '', reason: 'not needed' });
    expect(cancelled.run).toMatchObject({ state: State.PENDING });
    await transaction`DELETE FROM replicas WHERE id = ${dead[0]?.id ?? ''}`;
    return run?.id ?? '';
  });
  const run = await ended(clientsOf(1), id);
  expect(statesOf(run)).toEqual({ '': 'CANCELLED', a: 'CANCELLED', b: 'CANCELLED' });
  expect(run.error?.message).toBe('not needed');
  const { executions } = await clientsOf(1).executions.listExecutions({ labelSelector: `workflow-run=${id}` });
  expect(executions).toEqual([]);
});
