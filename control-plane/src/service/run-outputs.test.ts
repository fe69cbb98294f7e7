import { randomUUID } from 'node:crypto';
import type { JsonValue } from '@bufbuild/protobuf';
import { WorkflowRun_State as State } from '@harrier/shared/gen/workflow';
import { expect, test } from 'vitest';
import { insertWorkflowRun, listWorkflowNodes } from '../db/queries/workflow-runs.ts';
import { type NewStep, storeSteps } from '../db/queries/workflow-steps.ts';
import { uuidv7 } from '../db/uuid.ts';
import { startDatabase } from '../test-support/real-database.ts';
import { insertExecution } from '../test-support/stored-executions.ts';
import { graphOf } from '../workflow/test-support/simulate.ts';
import { MAX_OUTPUTS_BYTES, readRunOutputs, type ToldOutput } from './run-outputs.ts';

const { cold: sql, pools } = await startDatabase();
const [tenantId, replicaId] = [randomUUID(), randomUUID()];
const MIB = 1024 * 1024;

/** What a node has made: a text that the run keeps, or one of an execution; undefined: nothing. */
type Made = { kept: string } | { ofExecution: string } | { state: string } | { items: number };

/** A run with nodes as they are stored. @returns reads outputs of it */
async function runWith(nodes: JsonValue[], made: Record<string, Made>) {
  const { row } = await insertWorkflowRun(sql, {
    ...{ id: uuidv7(), tenantId, workflowId: randomUUID(), workflow: 'w', version: '1.0.0', pinned: {} },
    ...{ state: State.PENDING, inputJson: '{}', labels: undefined, idempotencyKey: undefined, replicaId },
  });
  const executions: Record<string, string> = {};
  for (const [path, one] of Object.entries(made)) {
    if (!('ofExecution' in one)) continue;
    const id = await insertExecution(sql, { tenant_id: tenantId });
    await sql`UPDATE executions SET output_json = ${one.ofExecution} WHERE tenant_id = ${tenantId} AND id = ${id}`;
    executions[path] = id;
  }
  const stored: NewStep['nodes'] = Object.entries(made).map(([path, one]) => {
    const state = 'state' in one ? one.state : 'SUCCEEDED';
    const output = 'kept' in one ? 'kept' : 'ofExecution' in one ? 'of execution' : undefined;
    return {
      ...{ path, input_json: '[]', instance: { state, output, items: 'items' in one ? one.items : undefined } },
      ...{ output_json: 'kept' in one ? one.kept : null, execution_id: executions[path] ?? null },
    };
  });
  const step = {
    run_id: row.id,
    tenant_id: tenantId,
    replica_id: replicaId,
    state: State.RUNNING,
    root: {},
    next_turn: 1,
  };
  const rest = {
    revision: 1,
    log_sequence: 1,
    output_json: null,
    start_time: null,
    end_time: null,
    log: [],
    heard: [],
  };
  await storeSteps(sql, [{ ...step, ...rest, nodes: stored }]);
  const graph = graphOf({ name: 'w', version: '1.0.0', nodes });
  const rows = (await listWorkflowNodes(sql, tenantId, row.id)).toSorted((a, b) => a.path.localeCompare(b.path));
  return async (...paths: string[]): Promise<Record<string, ToldOutput>> =>
    Object.fromEntries(await readRunOutputs(sql, { tenantId, runId: row.id, graph }, rows, paths));
}

const text = (mib: number) => `"${'x'.repeat(mib * MIB - 2)}"`;
const run = { module: 'm' };

test('outputs are those that the run keeps, those of executions, and of a map those of its items in order', async () => {
  const read = await runWith(
    [
      { id: 'e', run },
      { id: 'm', map: { items: 'input.list', run } },
      { id: 'none', map: { items: 'input.list', run } },
      { id: 'failed', map: { items: 'input.list', run } },
      { id: 't', transform: { expression: '1' } },
    ],
    {
      e: { ofExecution: '{"n": 1.10}' },
      m: { items: 3 },
      'm[0]': { ofExecution: '"first"' },
      'm[1]': { state: 'FAILED' },
      'm[2]': { ofExecution: '{"last": true}' },
      none: { items: 0 },
      failed: { state: 'FAILED' },
      'failed[0]': { state: 'FAILED' },
      t: { kept: '[1]' },
    },
  );
  expect(await read()).toEqual({
    e: { outputJson: '{"n": 1.10}' },
    m: { outputJson: '["first",null,{"last": true}]' },
    'm[0]': { outputJson: '"first"' },
    'm[2]': { outputJson: '{"last": true}' },
    none: { outputJson: '[]' },
    t: { outputJson: '[1]' },
  });
  expect(await read('t', 'm', 'nothing')).toEqual({
    t: { outputJson: '[1]' },
    m: { outputJson: '["first",null,{"last": true}]' },
  });
});

test('what would be too much for an answer is told by its size, and can be asked for alone', async () => {
  const read = await runWith(
    [
      { id: 'a', run },
      { id: 'b', transform: { expression: '1' } },
      { id: 'c', run },
      { id: 'd', map: { items: 'input.list', run } },
      { id: 'e', run },
    ],
    {
      a: { ofExecution: text(7) },
      b: { kept: text(7) },
      c: { ofExecution: text(3) },
      d: { items: 3 },
      ...Object.fromEntries([0, 1, 2].map((i) => [`d[${i}]`, { ofExecution: text(6) }])),
      e: { ofExecution: '1' },
    },
  );
  const told = await read();
  expect(Object.keys(told).toSorted()).toEqual(['a', 'b', 'c', 'd', 'd[0]', 'd[1]', 'd[2]', 'e']);
  expect(told).toMatchObject({
    ...{ a: { outputJson: text(7) }, b: { outputJson: text(7) }, e: { outputJson: '1' } },
    c: { omittedOutputBytes: BigInt(3 * MIB) },
    d: { omittedOutputBytes: BigInt(18 * MIB + '[,,]'.length) },
    'd[2]': { omittedOutputBytes: BigInt(6 * MIB) },
  });
  expect(await read('c')).toEqual({ c: { outputJson: text(3) } });
  expect(await read('d')).toMatchObject({ d: { omittedOutputBytes: BigInt(18 * MIB + '[,,]'.length) } });
  expect(await read('d[1]', 'd[2]')).toEqual({ 'd[1]': { outputJson: text(6) }, 'd[2]': { outputJson: text(6) } });
  expect(MAX_OUTPUTS_BYTES).toBe(16 * MIB);
});

test('however many outputs there are, they are read together', async () => {
  const items = Array.from({ length: 300 }, (_, i) => [`m[${i}]`, { ofExecution: `${i}` }] as const);
  const read = await runWith([{ id: 'm', map: { items: 'input.list', run } }], {
    m: { items: items.length },
    ...Object.fromEntries(items),
  });
  let statements = 0;
  for (const { observer } of pools) observer.onEnd(() => statements++);
  const { m } = await read();
  expect(m).toEqual({ outputJson: JSON.stringify(items.map((_, i) => i)) });
  expect(statements).toBe(2);
});
