// biome-ignore-all lint/suspicious/noTemplateCurlyInString: that is what templates look like
import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import { type Timestamp, timestampMs } from '@bufbuild/protobuf/wkt';
import { Code as ConnectCode } from '@connectrpc/connect';
import { WorkflowSchema } from '@harrier/shared/gen/workflow';
import { describe, expect, test } from 'vitest';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';
import { ended, getRun, python, startRun, statesOf, untilNode, workflow } from '../support/workflows.ts';

const stack = await startStack();
const { clients } = stack;
const run = async (...given: Parameters<typeof startRun> extends [unknown, ...infer Rest] ? Rest : never) => {
  return await ended(clients, await startRun(clients, ...given));
};
const output = async (id: string): Promise<unknown> => JSON.parse((await getRun(clients, id)).outputJson);

describe('data', () => {
  test('goes down a line: each node gets the variables, and over them what those before it have made', async () => {
    const line = workflow(
      {
        a: python('return {"n": input["n"] + 1, "unit": input["unit"]}'),
        b: python('return {"n": input["n"] * 10, "saw": input}'),
      },
      ['a -> b'],
      { variables: { unit: 'm' } },
    );
    const ran = await run(line, { n: 1 });
    expect(statesOf(ran)).toEqual({ '': 'SUCCEEDED', a: 'SUCCEEDED', b: 'SUCCEEDED' });
    expect(await output(ran.id)).toEqual({ n: 20, saw: { unit: 'm', n: 2 } });
    expect(ran.criticalPath).toEqual(['a', 'b']);
    expect(ran.nodes.every(({ executionId, tries }) => executionId !== '' && tries === 1)).toBe(true);
  });

  test('meets in a diamond, in the order of the edges; inputs and outputs can be templates, nodes set variables', async () => {
    const diamond = workflow(
      {
        a: python('return {"x": 1}', { set_variables: { seen: 'output.x + 41' } }),
        b: python('return {"from": "b", "b": True}'),
        c: python('return {"from": "c"}'),
        d: python('return input'),
        e: { transform: { expression: 'nodes.d.output.b ? {"v": variables.seen} : {}' } },
      },
      ['a -> b', 'a -> c', 'b -> d', 'c -> d', 'd -> e'],
      {
        variables: { seen: 0 },
        output: { d: '${nodes.d.output}', text: 'seen ${variables.seen}', e: '${nodes.e.output.v}' },
      },
    );
    const ran = await run(diamond, {});
    expect(await output(ran.id)).toEqual({ d: { seen: 42, from: 'c', b: true }, text: 'seen 42', e: 42 });
    expect(ran.variables).toEqual({ seen: 42 });
  });
});

describe('a wide graph', () => {
  const lanes = Array.from({ length: 50 }, (_, lane) => lane);

  test('begins all its branches at once, lets each go on by itself, and they meet at the end', async () => {
    const nodes: Record<string, JsonValue> = {
      start: { transform: { expression: '{}' } },
      end: python('return input'),
    };
    const edges: string[] = [];
    for (const lane of lanes) {
      nodes[`s${lane}`] = { signal: {} };
      nodes[`t${lane}`] = { transform: { expression: `{"v${lane}": nodes.s${lane}.output.n}` } };
      edges.push(`start -> s${lane}`, `s${lane} -> t${lane}`, `t${lane} -> end`);
    }
    const id = await startRun(clients, workflow(nodes, edges));
    const signal = (lane: number) =>
      clients.workflows.signalWorkflowRun({ id, path: `s${lane}`, payloadJson: `{"n": ${lane}}` });
    const waiting = async () => {
      const states = statesOf(await getRun(clients, id));
      return lanes.filter((lane) => states[`s${lane}`] === 'WAITING');
    };
    await until('all branches to wait', async () => (await waiting()).length === lanes.length);
    await signal(7);
    await untilNode(clients, id, 't7', 'SUCCEEDED');
    const others = lanes.filter((lane) => lane !== 7);
    expect(await waiting(), 'there is no barrier between levels').toEqual(others);
    expect(statesOf(await getRun(clients, id))).not.toHaveProperty('end');
    await Promise.all(others.map(signal));
    const ran = await ended(clients, id);
    expect(ran.nodes).toHaveLength(2 * lanes.length + 2);
    expect(new Set(Object.values(statesOf(ran)))).toEqual(new Set(['SUCCEEDED']));
    expect(await output(id)).toEqual(Object.fromEntries(lanes.map((lane) => [`v${lane}`, lane])));
  });

  test('has no more executions at once than max_parallel says', async () => {
    const nodes = Object.fromEntries(lanes.map((lane) => [`n${lane}`, python(`return {"v${lane}": ${lane}}`)]));
    const ran = await run(workflow(nodes, [], { max_parallel: 3 }), {});
    expect(statesOf(ran)).toMatchObject({ '': 'SUCCEEDED', n0: 'SUCCEEDED', n49: 'SUCCEEDED' });
    const listed = await clients.executions.listExecutions({
      labelSelector: `workflow-run=${ran.id}`,
      pageSize: 1000,
    });
    expect(listed.executions).toHaveLength(lanes.length);
    expect(mostAtOnce(listed.executions)).toBeLessThanOrEqual(3);
  });
});

describe('conditions', () => {
  const graded = workflow(
    {
      score: python('return {"score": input["score"]}'),
      grade: { condition: {} },
      high: python('return {"grade": "high"}'),
      middle: python('return {"grade": "middle"}'),
      low: python('return {"grade": "low"}'),
      after_high: python('return {}'),
      end: python('return input'),
    },
    [
      'score -> grade',
      'grade -> low ? default',
      'high -> after_high',
      'after_high -> end',
      'middle -> end',
      'low -> end',
    ],
  );
  const edges = graded.edges as object[];
  edges.push({ from: 'grade', to: 'middle', when: 'nodes.score.output.score > 5', priority: 2 });
  edges.push({ from: 'grade', to: 'high', when: 'nodes.score.output.score > 8', priority: 1 });

  test('are tried by priority, and what no edge reaches is skipped, through joins', async () => {
    const id = await startRun(clients, graded, { score: 9 });
    expect(statesOf(await ended(clients, id))).toMatchObject({
      high: 'SUCCEEDED',
      middle: 'SKIPPED',
      low: 'SKIPPED',
      end: 'SUCCEEDED',
    });
    const again = async (score: number) => {
      const inputForm = { case: 'inputJson' as const, value: JSON.stringify({ score }) };
      const { run: started } = await clients.workflows.runWorkflow({ name: String(graded.name), inputForm });
      return statesOf(await ended(clients, started?.id ?? ''));
    };
    expect(await again(6)).toMatchObject({
      high: 'SKIPPED',
      after_high: 'SKIPPED',
      middle: 'SUCCEEDED',
      end: 'SUCCEEDED',
    });
    expect(await again(1)).toMatchObject({ low: 'SUCCEEDED', middle: 'SKIPPED', end: 'SUCCEEDED' });
  });

  test('tell in the log of the run what decided', async () => {
    const { run: started } = await clients.workflows.runWorkflow({
      name: String(graded.name),
      inputForm: { case: 'inputJson', value: '{"score": 6}' },
    });
    const lines = await logOf(started?.id ?? '');
    expect(lines.map(({ text }) => text)).toContainEqual(
      expect.stringContaining(
        'grade: "nodes.score.output.score > 8" is false: high is not taken; "nodes.score.output.score > 5" is true: middle is taken',
      ),
    );
    const middle = Math.floor(lines.length / 2);
    const after = lines[middle - 1]?.sequence;
    expect(await logOf(started?.id ?? '', after), 'a watch goes on where it was').toEqual(lines.slice(middle));
  });

  test('that cannot be evaluated fail their node with the expression and the reason', async () => {
    const ran = await run(
      workflow({ c: { condition: {} }, a: python('return {}') }, ['c -> a ? input.missing > 1']),
      {},
    );
    expect(statesOf(ran)).toMatchObject({ '': 'FAILED', c: 'FAILED' });
    expect(ran.error?.message).toBe('c: "input.missing > 1" has no value: field not found: missing; input is {}');
  });

  test('that cannot be evaluated after a failure that is tolerated let the run go on without them', async () => {
    const nodes = {
      a: python('raise ValueError("no")', { on_failure: 'CONTINUE', set_variables: { n: 'output.n' } }),
      yes: python('return {}'),
      no: python('return {}'),
    };
    const ran = await run(workflow(nodes, ['a -> yes ? output.n > 1', 'a -> no ? default']), {});
    expect(statesOf(ran)).toEqual({ '': 'SUCCEEDED', a: 'FAILED', yes: 'SKIPPED', no: 'SUCCEEDED' });
    expect(ran.nodes.find(({ path }) => path === 'a')?.error?.message).toContain('"output.n > 1" has no value');
  });
});

describe('maps', () => {
  test('run for each item, with results in order', async () => {
    const map = workflow(
      { m: { map: { items: 'input.list', ...python('return {"square": input["item"] ** 2}'), concurrency: 2 } } },
      [],
      { output: '${nodes.m.output.map(r, r.square)}' },
    );
    expect(await output((await run(map, { list: [1, 2, 3, 4] })).id)).toEqual([1, 4, 9, 16]);
  });

  test('nest, see what is around them, and collect failures', async () => {
    const graph = {
      nodes: [
        { id: 'x', ...python('return {"v": input["n"]}', { input: { n: '${item.n + variables.add}' } }) },
        {
          id: 'inner',
          map: {
            items: 'item.list',
            mode: 'COLLECT',
            ...python('if input["item"] == 0: raise ValueError("zero")\nreturn {"v": input["item"]}'),
          },
        },
      ],
      edges: [{ from: 'x', to: 'inner' }],
      output: { v: '${nodes.x.output.v}', inner: '${nodes.inner.output}', index: '${index}' },
    };
    const ran = await run(
      workflow({ m: { map: { items: 'input.list', graph } } }, [], {
        variables: { add: 100 },
        output: '${nodes.m.output}',
      }),
      {
        list: [
          { n: 1, list: [1, 0] },
          { n: 2, list: [] },
        ],
      },
    );
    expect(await output(ran.id)).toEqual([
      { v: 101, inner: [{ v: 1 }, null], index: 0 },
      { v: 102, inner: [], index: 1 },
    ]);
  });
});

test('a workflow runs another one, with its own input and variables', async () => {
  const inner = workflow({ a: python('return {"n": input["n"] + input["step"]}') }, [], { variables: { step: 5 } });
  await clients.workflows.createWorkflow({ workflow: fromJson(WorkflowSchema, inner) });
  const outer = workflow(
    { w: { workflow: { name: String(inner.name) }, input: { n: '${input.n * 2}' } }, b: python('return input') },
    ['w -> b'],
  );
  const ran = await run(outer, { n: 4 });
  expect(statesOf(ran)).toMatchObject({ '': 'SUCCEEDED', w: 'SUCCEEDED', 'w.a': 'SUCCEEDED' });
  expect(await output(ran.id)).toEqual({ n: 13 });
  const circle = {
    ...inner,
    version: '2.0.0',
    nodes: [{ id: 'w', workflow: { name: String(outer.name) } }],
    edges: [],
  };
  await expect(clients.workflows.createWorkflow({ workflow: fromJson(WorkflowSchema, circle) })).rejects.toThrow(
    'in a circle',
  );
});

describe('bad input', () => {
  test('is told with the path in the document, and nothing is stored', async () => {
    const bad = workflow({ a: python('return {}'), b: { transform: { expression: 'nodes.c.output' } } }, [
      'a -> b',
      'b -> a',
    ]);
    const refused = await clients.workflows
      .createWorkflow({ workflow: fromJson(WorkflowSchema, bad) })
      .catch((error: Error) => error);
    expect(String(refused)).toContain('workflow.edges: the edges lead in a circle: a → b → a');
    expect(String(refused)).toContain(
      'workflow.nodes[1].transform.expression: "nodes.c.output" names the node "c", which there is not',
    );
    await expect(clients.workflows.getWorkflow({ name: String(bad.name) })).rejects.toMatchObject({
      code: ConnectCode.NotFound,
    });
  });

  test('of a run is refused by the schema', async () => {
    const strict = workflow({ a: python('return {}') }, [], { input_schema: { type: 'object', required: ['n'] } });
    await expect(startRun(clients, strict, {})).rejects.toThrow('does not satisfy the input schema');
  });
});

test('REST and an idempotency key: the same run', async () => {
  const definition = workflow({ a: python('return {"ok": True}') }, []);
  const created = await clients.rest('POST', '/workflows', definition);
  expect(created.status).toBe(200);
  const body = { input: {}, idempotency_key: 'once' };
  const first = await clients.rest('POST', `/workflows/${definition.name}/run`, body);
  const second = await clients.rest('POST', `/workflows/${definition.name}/run`, body);
  expect(JSON.parse(first.text)).toMatchObject({ workflow: definition.name });
  expect(JSON.parse(second.text).id).toBe(JSON.parse(first.text).id);
  const ran = await ended(clients, JSON.parse(first.text).id as string);
  expect(statesOf(ran)).toMatchObject({ '': 'SUCCEEDED' });
});

/** The log of a run to its end. @param afterSequence the line behind which a watch goes on */
async function logOf(id: string, afterSequence = 0n): Promise<{ sequence: bigint; text: string }[]> {
  const lines: { sequence: bigint; text: string }[] = [];
  for await (const { event } of clients.workflows.watchWorkflowRun({ id, afterSequence })) {
    if (event.case !== 'log') continue;
    const { sequence, path, message } = event.value;
    lines.push({ sequence, text: `${path}: ${message}` });
  }
  return lines;
}

/** How many of them were there at the same time, from their acceptance to their end. */
function mostAtOnce(
  executions: readonly { createTime?: Timestamp | undefined; endTime?: Timestamp | undefined }[],
): number {
  const steps = executions.flatMap(({ createTime, endTime }) => {
    if (createTime === undefined || endTime === undefined) throw new Error('an execution has not ended');
    return [
      { ms: timestampMs(createTime), by: 1 },
      { ms: timestampMs(endTime), by: -1 },
    ];
  });
  let now = 0;
  // Of the same millisecond, the ends come first: each lets another one begin.
  const counts = steps.toSorted((a, b) => a.ms - b.ms || a.by - b.by).map(({ by }) => (now += by));
  return Math.max(...counts);
}
