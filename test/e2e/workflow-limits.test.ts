// biome-ignore-all lint/suspicious/noTemplateCurlyInString: that is what templates look like
import { randomBytes } from 'node:crypto';
import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import type { Timestamp } from '@bufbuild/protobuf/wkt';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { WorkflowSchema } from '@harrier/shared/gen/workflow';
import { expect, test } from 'vitest';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';
import { ended, getRun, python, startRun, statesOf, workflow } from '../support/workflows.ts';

const { clients } = await startStack();

/** As many nodes as a workflow may have. */
const LANES = 100;
const DEPTH = 50;

test('5,000 nodes run in their order', async () => {
  await clients.modules.createModule({
    module: {
      name: 'add-one',
      version: '1.0.0',
      reuse: true,
      code: 'def handler(input): return {"n": input["n"] + 1}',
    },
  });
  const id = (lane: number, depth: number) => `l${lane % LANES}_${depth}`;
  const kindOf = (lane: number, depth: number): JsonValue => {
    if (depth === 0) return { transform: { expression: '{"n": 0}' } };
    if (depth === 24) return { condition: {} };
    if (depth % 12 === 6) return { run: { module: 'add-one' } };
    return { transform: { expression: `{"n": nodes.${id(lane, depth === 25 ? 23 : depth - 1)}.output.n + 1}` } };
  };
  const nodes: Record<string, JsonValue> = {};
  const edges: string[] = [];
  for (let lane = 0; lane < LANES; lane++) {
    for (let depth = 0; depth < DEPTH; depth++) {
      nodes[id(lane, depth)] = kindOf(lane, depth);
      if (depth === 0) continue;
      const when = depth === 25 ? ` ? nodes.${id(lane, 23)}.output.n > 0` : '';
      edges.push(`${id(lane, depth - 1)} -> ${id(lane, depth)}${when}`);
      if (depth % 10 === 0) edges.push(`${id(lane + 1, depth - 1)} -> ${id(lane, depth)}`);
    }
  }
  const run = await startRun(
    clients,
    workflow(nodes, edges, { max_parallel: 32, output: { n: `\${nodes.${id(0, DEPTH - 1)}.output.n}` } }),
  );
  const ran = await ended(clients, run);
  expect(JSON.parse(ran.outputJson)).toEqual({ n: DEPTH - 2 });
  const states = new Set(Object.values(statesOf(ran)));
  expect([ran.nodes.length, [...states]]).toEqual([LANES * DEPTH, ['SUCCEEDED']]);
  const byPath = new Map(ran.nodes.map((node) => [node.path, node]));
  const early = edges.filter((edge) => {
    const [from = '', to = ''] = edge.split(/ -> | \? /);
    return millisecondsOf(byPath.get(to)?.startTime) < millisecondsOf(byPath.get(from)?.endTime);
  });
  expect(early).toEqual([]);
});

test('a run of which the database does not take a step fails, says why, and can be started again', async () => {
  // Names that do not get shorter by compression: the path of the innermost node is longer than an entry of an index may be.
  const name = () => `n${randomBytes(31).toString('hex')}`;
  let inner: JsonValue = { transform: { expression: '1' } };
  for (let deep = 0; deep < 6; deep++) {
    for (let map = 0; map < 7; map++) inner = { map: { items: '[1]', graph: { nodes: [{ id: name(), ...inner }] } } };
    const within = workflow({ [name()]: inner }, []);
    await clients.workflows.createWorkflow({ workflow: fromJson(WorkflowSchema, within) });
    inner = { workflow: { name: String(within.name) } };
  }
  const id = await startRun(
    clients,
    workflow({ deep: inner, waits: { signal: {} }, after: python('return {}') }, ['deep -> after']),
  );
  const refused = {
    code: Code.INTERNAL,
    message: expect.stringMatching(/^the next step cannot be stored: index row size \d+ exceeds/),
  };
  const ran = await ended(clients, id);
  expect(statesOf(ran)).toMatchObject({ '': 'FAILED', deep: 'CANCELLED', waits: 'CANCELLED' });
  expect(ran.error).toMatchObject(refused);
  await clients.workflows.retryWorkflowRun({ id });
  await until('the run to fail again', async () =>
    (await getRun(clients, id)).nodes.some(({ path, tries }) => path === 'deep' && tries === 2),
  );
  expect((await ended(clients, id)).error).toMatchObject(refused);
});

function millisecondsOf(time: Timestamp | undefined): number {
  return Number(time?.seconds ?? 0n) * 1e3 + (time?.nanos ?? 0) / 1e6;
}
