// biome-ignore-all lint/suspicious/noTemplateCurlyInString: that is what templates look like
import { fromJson } from '@bufbuild/protobuf';
import { Code as ConnectCode } from '@connectrpc/connect';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { WorkflowSchema } from '@harrier/shared/gen/workflow';
import { describe, expect, test } from 'vitest';
import { startStack } from '../support/stack.ts';
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
    const messages: string[] = [];
    for await (const { event } of clients.workflows.watchWorkflowRun({ id: started?.id ?? '' })) {
      if (event.case === 'log') messages.push(`${event.value.sequence} ${event.value.path}: ${event.value.message}`);
    }
    expect(messages).toContainEqual(
      expect.stringContaining(
        '"nodes.score.output.score > 8" is false: high is not taken; "nodes.score.output.score > 5" is true: middle is taken',
      ),
    );
    const from = messages.length - 1;
    const later: bigint[] = [];
    for await (const { event } of clients.workflows.watchWorkflowRun({
      id: started?.id ?? '',
      afterSequence: BigInt(from),
    })) {
      if (event.case === 'log') later.push(event.value.sequence);
    }
    expect(
      later.every((sequence) => sequence > BigInt(from)),
      'a watch goes on where it was',
    ).toBe(true);
  });

  test('that cannot be evaluated fail their node with the expression and the reason', async () => {
    const ran = await run(
      workflow({ c: { condition: {} }, a: python('return {}') }, ['c -> a ? input.missing > 1']),
      {},
    );
    expect(statesOf(ran)).toMatchObject({ '': 'FAILED', c: 'FAILED' });
    expect(ran.error?.message).toBe('c: "input.missing > 1" has no value: field not found: missing');
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

describe('failures', () => {
  const FLAKY = 'import os\nif os.environ["HARRIER_TRY"] == "x": pass\nraise ValueError("no")';

  test('end the run, and stop what runs', async () => {
    const ran = await run(
      workflow(
        {
          bad: python('raise ValueError("no")'),
          long: python('import time; time.sleep(600)\nreturn {}'),
          next: python('return {}'),
        },
        ['bad -> next'],
      ),
      {},
    );
    expect(statesOf(ran)).toMatchObject({ '': 'FAILED', bad: 'FAILED', long: 'CANCELLED' });
    expect(ran.error).toMatchObject({ code: Code.HANDLER_ERROR, message: 'bad: ValueError: no' });
  });

  test('are tried again as the node says; tries are counted, each an execution of its own', async () => {
    const retry = { max_attempts: 3, initial_backoff: '0.01s' };
    const ran = await run(workflow({ a: python(FLAKY.split('\n').at(-1) ?? '', { retry }) }, []), {});
    expect(ran.nodes).toMatchObject([{ path: 'a', tries: 3 }]);
    const { executions } = await clients.executions.listExecutions({ labelSelector: `workflow-run=${ran.id}` });
    expect(executions).toHaveLength(3);
  });

  test('can be tolerated; what cleans up runs all the same', async () => {
    const nodes = {
      a: python('raise ValueError("no")', { on_failure: 'CONTINUE' }),
      b: python('return {}'),
      bad: python('raise ValueError("end")'),
      clean: python('return {"clean": True}', { join: 'ALL_DONE' }),
    };
    const ran = await run(workflow(nodes, ['a -> b', 'b -> bad', 'bad -> clean']), {});
    expect(statesOf(ran)).toEqual({ '': 'FAILED', a: 'FAILED', b: 'SUCCEEDED', bad: 'FAILED', clean: 'SUCCEEDED' });
  });

  test('are no end: a run can be started again from them', async () => {
    const { module } = await clients.modules.createModule({
      module: { name: 'fixable', version: '1.0.0', code: 'def handler(input):\n    raise ValueError("broken")\n' },
    });
    const nodes = { a: python('return {"n": 1}'), b: { run: { module: 'fixable' } }, c: python('return input') };
    const ran = await run(workflow(nodes, ['a -> b', 'b -> c']), {});
    expect(statesOf(ran)).toMatchObject({ '': 'FAILED', a: 'SUCCEEDED', b: 'FAILED' });
    expect(module?.version).toBe('1.0.0');
    await clients.modules.createModule({
      module: { name: 'fixable', version: '1.0.1', code: 'def handler(input):\n    return {"n": input["n"] + 1}\n' },
    });
    await clients.workflows.retryWorkflowRun({ id: ran.id });
    await untilNode(clients, ran.id, 'c', 'SUCCEEDED');
    const again = await ended(clients, ran.id);
    expect(statesOf(again)).toEqual({ '': 'SUCCEEDED', a: 'SUCCEEDED', b: 'SUCCEEDED', c: 'SUCCEEDED' });
    expect(again.nodes.map(({ path, tries }) => [path, tries])).toEqual([
      ['a', 1],
      ['b', 2],
      ['c', 1],
    ]);
    expect(await output(ran.id)).toEqual({ n: 2 });
    await expect(clients.workflows.retryWorkflowRun({ id: ran.id })).rejects.toMatchObject({
      code: ConnectCode.FailedPrecondition,
    });
  });
});

describe('time', () => {
  test('ends a node, and a run', async () => {
    const sleeper = python('import time; time.sleep(600)\nreturn {}', { timeout: '0.5s' });
    expect(statesOf(await run(workflow({ a: sleeper }, []), {}))).toEqual({ '': 'FAILED', a: 'TIMED_OUT' });
    const waits = workflow({ s: { signal: {} }, a: python('import time; time.sleep(600)\nreturn {}') }, [], {
      timeout: '0.5s',
    });
    expect(statesOf(await run(waits, {}))).toEqual({ '': 'TIMED_OUT', s: 'CANCELLED', a: 'CANCELLED' });
  });

  test('can be waited for', async () => {
    const ran = await run(
      workflow(
        {
          w: { wait: { duration: '0.3s' } },
          u: { wait: { time: 'timestamp(run.create_time) + duration("0.2s")' } },
          a: python('return {}'),
        },
        ['w -> a', 'u -> a'],
      ),
      {},
    );
    const [w] = ran.nodes.filter(({ path }) => path === 'w');
    expect(statesOf(ran)).toMatchObject({ '': 'SUCCEEDED', w: 'SUCCEEDED', u: 'SUCCEEDED' });
    expect(Number(w?.endTime?.seconds ?? 0n) * 1e3 + (w?.endTime?.nanos ?? 0) / 1e6).toBeGreaterThanOrEqual(
      Number(w?.startTime?.seconds ?? 0n) * 1e3 + (w?.startTime?.nanos ?? 0) / 1e6 + 300,
    );
  });
});

describe('signals', () => {
  const approval = () =>
    workflow(
      {
        ask: { signal: { schema: { type: 'object', required: ['approved'] } }, timeout: '600s' },
        decide: { condition: {} },
        deploy: python('return {"by": input["by"]}'),
        refuse: python('return {"refused": True}'),
      },
      ['ask -> decide', 'decide -> deploy ? nodes.ask.output.approved', 'decide -> refuse ? default'],
    );
  const signal = (id: string, payload: string, path = 'ask') =>
    clients.workflows.signalWorkflowRun({ id, path, payloadJson: payload });

  test('let a run go on with what they bring', async () => {
    const id = await startRun(clients, {
      ...approval(),
      edges: [{ from: 'ask', to: 'deploy' }],
      nodes: (approval().nodes as { id: string }[]).filter(
        ({ id: node }) => node === 'ask' || node === 'deploy',
      ) as never,
    });
    await untilNode(clients, id, 'ask', 'WAITING');
    await expect(signal(id, '{}')).rejects.toMatchObject({ code: ConnectCode.InvalidArgument });
    await expect(signal(id, '{"approved": true}', 'deploy')).rejects.toMatchObject({
      code: ConnectCode.FailedPrecondition,
    });
    await signal(id, '{"approved": true, "by": "ada"}');
    expect(statesOf(await ended(clients, id))).toMatchObject({ '': 'SUCCEEDED', deploy: 'SUCCEEDED' });
    expect(await output(id)).toEqual({ by: 'ada' });
    await expect(signal(id, '{"approved": true}')).rejects.toMatchObject({ code: ConnectCode.FailedPrecondition });
  });

  test('can refuse', async () => {
    const id = await startRun(clients, approval());
    await untilNode(clients, id, 'ask', 'WAITING');
    await signal(id, '{"approved": false}');
    expect(statesOf(await ended(clients, id))).toMatchObject({
      '': 'SUCCEEDED',
      deploy: 'SKIPPED',
      refuse: 'SUCCEEDED',
    });
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

describe('cancelling', () => {
  test('stops what runs and what waits; an ended run refuses it', async () => {
    const nodes = { a: python('import time; time.sleep(600)\nreturn {}'), s: { signal: {} }, b: python('return {}') };
    const id = await startRun(clients, workflow(nodes, ['a -> b']));
    await untilNode(clients, id, 'a', 'RUNNING');
    await clients.workflows.cancelWorkflowRun({ id, reason: 'enough' });
    const ran = await ended(clients, id);
    expect(statesOf(ran)).toMatchObject({ '': 'CANCELLED', a: 'CANCELLED', s: 'CANCELLED' });
    expect(ran.error?.message).toBe('enough');
    await expect(clients.workflows.cancelWorkflowRun({ id })).rejects.toMatchObject({
      code: ConnectCode.FailedPrecondition,
    });
  });
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
