// biome-ignore-all lint/suspicious/noTemplateCurlyInString: that is what templates look like
import type { JsonValue } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { describe, expect, test, vi } from 'vitest';
import type { Json } from './expression.ts';
import { MAX_KEPT_CHARS, MAX_VARIABLES_CHARS } from './run-limits.ts';
import { type InMemoryOptions, InMemoryRun } from './test-support/in-memory.ts';
import { MAX_READ_BYTES } from './value-reading.ts';

const run = { module: 'm' };
const MIB = 1024 * 1024;

type Definition = Record<string, JsonValue>;

async function ended(definition: Definition, options: InMemoryOptions = {}): Promise<InMemoryRun> {
  return await new InMemoryRun(definition, options).end();
}

/** The run, and why it failed. */
async function failed(definition: Definition, options: InMemoryOptions = {}): Promise<string> {
  const { run } = await ended(definition, options);
  const root = run.instances.get('');
  expect(root?.state).toBe('FAILED');
  return root?.error?.message ?? '';
}

describe('the input of a node', () => {
  const line = {
    nodes: [
      { id: 'a', run },
      { id: 'b', run },
      { id: 'c', run },
    ],
    edges: [
      { from: 'a', to: 'c' },
      { from: 'b', to: 'c' },
    ],
    variables: { v: 1, x: 'variable' },
  };

  test('is that of the run, then the outputs before it over the variables, in the order of the edges', async () => {
    const outputs: Record<string, Json> = { a: { x: 'a', only: 'a' }, b: { x: 'b' }, c: {} };
    const { inputs } = await ended(line, { input: { x: 'input' }, work: (_, path) => outputs[path] ?? null });
    expect(inputs.get('a')).toEqual({ v: 1, x: 'input' });
    expect(inputs.get('c')).toEqual({ v: 1, x: 'b', only: 'a' });
  });

  test('has what is no object under the name of its node, and nothing of one that failed', async () => {
    const nodes = [
      { id: 'a', run },
      { id: 'b', run, on_failure: 'CONTINUE' },
      { id: 'c', run },
    ];
    const work = (_: Json, path: string): Json => {
      if (path === 'b') throw new Error('broken');
      return path === 'a' ? [1, 2] : {};
    };
    const { inputs } = await ended({ ...line, nodes }, { work });
    expect(inputs.get('c')).toEqual({ v: 1, x: 'variable', a: [1, 2] });
  });

  test('is what its template makes of everything that it names', async () => {
    const { inputs } = await ended(
      {
        nodes: [
          { id: 'a', run, set_variables: { n: 'output.n + 1' } },
          {
            id: 'b',
            run: { module: 'm', labels: { own: 'label' } },
            input: {
              text: '${input.who}: ${nodes.a.output.n} of ${run.workflow}',
              n: '${variables.n}',
              state: '${nodes.a.state}',
              any: '${nodes[input.which].output.n}',
            },
          },
        ],
        edges: [{ from: 'a', to: 'b' }],
      },
      {
        input: { who: 'Ada', which: 'a' },
        work: (_, path, { labels, target }) => {
          if (path === 'b') expect([labels, target.value]).toEqual([{ run: 'label', own: 'label' }, 'm']);
          return { n: 1 };
        },
      },
    );
    expect(inputs.get('b')).toEqual({ text: 'Ada: 1 of w', n: 2, state: 'SUCCEEDED', any: 1 });
  });

  test('that is no object fails the node', async () => {
    expect(await failed({ nodes: [{ id: 'a', run, input: '${input.n}' }] }, { input: { n: 7 } })).toBe(
      'a: the input is 7, which is not an object',
    );
    expect(await failed({ nodes: [{ id: 'a', run, input: '${input.n}' }] }, { input: { n: [1] } })).toContain('[1]');
  });

  test('__proto__ in an output is a name as any other', async () => {
    const { inputs } = await ended(
      {
        nodes: [
          { id: 'a', run },
          { id: 'b', run },
        ],
        edges: [{ from: 'a', to: 'b' }],
      },
      { work: (_, path) => (path === 'a' ? (JSON.parse('{"__proto__": {"polluted": 1}}') as Json) : {}) },
    );
    expect(JSON.stringify(inputs.get('b'))).toBe('{"__proto__":{"polluted":1}}');
  });
});

describe('a map', () => {
  test('gives each item to its body, and has their outputs in order', async () => {
    const made = await ended(
      {
        nodes: [
          { id: 'm', map: { items: 'input.list', run } },
          {
            id: 'o',
            map: { items: 'input.list', run },
            input: { i: '${index}', n: '${item.n}', m: '${nodes.m.state}' },
          },
          { id: 'all', transform: { expression: 'nodes.m.output.map(o, o.got)' } },
        ],
        edges: [
          { from: 'm', to: 'all' },
          { from: 'm', to: 'o' },
        ],
      },
      {
        input: { list: [{ n: 1 }, { n: 2 }] },
        work: (input) => ({ got: (input as { n: number }).n }),
      },
    );
    expect(made.inputs.get('o[1]')).toEqual({ i: 1, n: 2, m: 'SUCCEEDED' });
    expect(made.outputOf('all')).toEqual([1, 2]);
  });

  test('has null for items that failed, and is null itself when it did', async () => {
    const map = (mode: string): Definition => ({
      nodes: [
        { id: 'm', map: { items: '[1, 2]', run, mode }, on_failure: 'CONTINUE' },
        { id: 'all', transform: { expression: '[nodes.m.output, nodes.m.error]' } },
      ],
      edges: [{ from: 'm', to: 'all' }],
    });
    const work = (input: Json): Json => {
      if ((input as { item: number }).item === 1) throw new Error('no');
      return { ok: true };
    };
    const collected = await ended(map('COLLECT'), { work });
    const error = { message: '1 of 2 items failed', items: { 0: 'no' } };
    expect(collected.outputOf('all')).toEqual([[null, { ok: true }], error]);
    expect(collected.log).toContain('m: 1 of 2 items failed');
    const good = await ended(map('COLLECT'), { work: () => ({ ok: true }) });
    expect(good.outputOf('all')).toEqual([[{ ok: true }, { ok: true }], null]);
    expect((await ended(map('FAIL_FAST'), { work })).outputOf('all')).toEqual([null, { message: 'm[0]: no' }]);
  });

  test('tells of the items that failed, so that edges can be taken by it', async () => {
    const edges = [
      { from: 'm', to: 'bad', when: 'nodes.m.error != null && "3" in nodes.m.error.items' },
      { from: 'm', to: 'good', default: true },
    ];
    const branches = (items: string): Definition => ({
      nodes: [
        { id: 'm', map: { items, run, mode: 'COLLECT' } },
        { id: 'bad', transform: { expression: '[nodes.m.error.message, nodes.m.error.items["3"]]' } },
        { id: 'good', transform: { expression: '1' } },
      ],
      edges,
    });
    const work = (input: Json): Json => {
      if ((input as { item: number }).item > 1) throw new Error('x'.repeat(3_000));
      return {};
    };
    const bad = await ended(branches('[0, 1, 0, 2, 2]'), { work });
    expect(bad.outputOf('bad')).toEqual(['2 of 5 items failed', 'x'.repeat(1_000)]);
    expect([bad.instance('m').state, bad.instance('good').state]).toEqual(['SUCCEEDED', 'SKIPPED']);
    expect((await ended(branches('[0, 1]'), { work })).instance('bad').state).toBe('SKIPPED');
  });

  test('tells of the first hundred only', async () => {
    const made = await ended(
      {
        nodes: [
          { id: 'm', map: { items: 'input.list', run, mode: 'COLLECT' } },
          { id: 'size', transform: { expression: '[size(nodes.m.error.items), nodes.m.error.message]' } },
        ],
        edges: [{ from: 'm', to: 'size' }],
      },
      {
        input: { list: Array.from({ length: 150 }, (_, i) => i) },
        work: () => {
          throw new Error('no');
        },
      },
    );
    expect(made.outputOf('size')).toEqual([100, '150 of 150 items failed']);
  });

  test('with a graph sees the item in it, the nodes around it, and makes the output of each item', async () => {
    const graph = {
      nodes: [
        { id: 'x', run, input: { n: '${item}', by: '${nodes.k.output.by}' } },
        { id: 'y', run },
        { id: 'last', run },
      ],
      edges: [{ from: 'x', to: 'y' }],
      output: { got: '${nodes.y.output.n}', at: '${index}' },
    };
    const made = await ended(
      {
        nodes: [
          { id: 'k', run },
          { id: 'm', map: { items: 'input.list', graph } },
        ],
        edges: [{ from: 'k', to: 'm' }],
        output: '${nodes.m.output}',
      },
      {
        input: { list: [3, 4] },
        work: (input, path) => {
          if (path === 'k') return { by: 10 };
          const { n, by } = input as { n: number; by?: number };
          return by === undefined ? { n } : { n: n * by };
        },
      },
    );
    expect(made.inputs.get('m[1].last')).toEqual({ item: 4 });
    expect(made.outputOf('')).toEqual([
      { got: 30, at: 0 },
      { got: 40, at: 1 },
    ]);
  });

  test('takes a list, of at most 10,000 items', async () => {
    const map = { nodes: [{ id: 'm', map: { items: 'input.list', run } }] };
    expect(await failed(map, { input: { list: 'abc' } })).toBe('m: "input.list" is "abc", which is not a list');
    const list = Array.from({ length: 10_001 }, () => 1);
    expect(await failed(map, { input: { list } })).toBe('m: "input.list" has 10001 items; a map takes at most 10000');
  });
});

describe('the input schema of a workflow within a workflow', () => {
  const inner = {
    ...{ name: 'inner', version: '1.2.0', nodes: [{ id: 'x', run }] },
    input_schema: { type: 'object', properties: { n: { type: 'integer' } }, required: ['n'] },
  };
  const outer = (input: JsonValue) => ({
    nodes: [{ id: 'w', workflow: { name: 'inner' }, input, retry: { max_attempts: 3 } }],
  });

  test('lets what satisfies it through', async () => {
    const made = await ended(outer({ n: '${input.n}' }), { others: [inner], input: { n: 5 } });
    expect(made.inputs.get('w.x')).toEqual({ n: 5 });
    expect(made.instance('').state).toBe('SUCCEEDED');
  });

  test('tells no more of a long name than what an error may keep', async () => {
    const strict = { ...inner, input_schema: { type: 'object', additionalProperties: false } };
    const input = { ['k'.repeat(1_000_000)]: 1 };
    const given = { nodes: [{ id: 'w', workflow: { name: 'inner' } }] };
    const why = await failed(given, { others: [strict], input });
    expect(why).toMatch(/^w: the input does not satisfy .* additional properties \("k+…\)$/);
    expect(why.length).toBeLessThan(400);
  });

  test('ends the node with what is wrong otherwise, and nothing of the workflow begins', async () => {
    const made = await ended(outer({ n: '${input.n}' }), { others: [inner], input: { n: 'five' } });
    expect(made.instance('w')).toMatchObject({
      ...{ state: 'FAILED', tries: 1 },
      error: {
        code: Code.INPUT_INVALID,
        message: 'the input does not satisfy the input schema of inner 1.2.0: /n must be integer',
      },
    });
    expect(made.inputs.size).toBe(0);
  });
});

test('a workflow within a workflow has an input, variables and an output of its own', async () => {
  const inner = {
    name: 'inner',
    version: '1.0.0',
    variables: { v: 'inner', w: 1 },
    nodes: [
      { id: 'x', run, input: { got: '${input.n}', v: '${variables.v}' }, set_variables: { v: '"set"' } },
      { id: 'y', run, input: { v: '${variables.v}', w: '${variables.w}' } },
    ],
    edges: [{ from: 'x', to: 'y' }],
  };
  const made = await ended(
    {
      variables: { v: 'outer' },
      nodes: [
        { id: 'w', workflow: { name: 'inner' }, input: { n: '${input.n}' } },
        { id: 'p', workflow: { name: 'inner' } },
        { id: 'z', run, input: { v: '${variables.v}' } },
      ],
      edges: [{ from: 'w', to: 'z' }],
    },
    { others: [inner], input: { n: 5 }, work: (input) => input },
  );
  expect(made.inputs.get('w.x')).toEqual({ got: 5, v: 'inner' });
  expect(made.inputs.get('p.x')).toEqual({ got: 5, v: 'inner' });
  expect(made.inputs.get('w.y')).toEqual({ v: 'set', w: 1 });
  expect(made.inputs.get('z')).toEqual({ v: 'outer' });
  expect(made.outputOf('w')).toEqual({ v: 'set', w: 1 });
});

describe('a wait', () => {
  test('is for a duration, or until a time', async () => {
    const soon = new Date(Date.now() + 20).toISOString();
    const made = await ended(
      {
        nodes: [
          { id: 'd', wait: { duration: '0.010s' } },
          { id: 't', wait: { time: 'input.at' } },
          { id: 'past', wait: { time: 'timestamp("2020-01-01T00:00:00Z")' } },
        ],
      },
      { input: { at: soon } },
    );
    expect(made.instance('').state).toBe('SUCCEEDED');
    expect(made.instance('t').endMs).toBeGreaterThanOrEqual(Date.parse(soon));
  });

  test('until what is no time fails', async () => {
    const wait = { nodes: [{ id: 't', wait: { time: 'input.at' } }] };
    expect(await failed(wait, { input: { at: 'noon' } })).toBe('t: "input.at" is "noon", which is not a time');
    expect(await failed(wait, { input: { at: 12 } })).toBe('t: "input.at" is 12, which is not a time');
  });
});

describe('a decision', () => {
  const condition = (edges: JsonValue[]): Definition => ({
    nodes: [
      { id: 'c', condition: {} },
      { id: 'a', run },
      { id: 'b', run },
      { id: 'd', run },
    ],
    edges,
  });
  const taken = async (definition: Definition, input: Json): Promise<string[]> => {
    const { inputs } = await ended(definition, { input });
    return [...inputs.keys()].toSorted();
  };

  test('of a condition is its first edge that is true, by priority and then as they are written, else the default', async () => {
    const definition = condition([
      { from: 'c', to: 'a', when: 'input.n > 1', priority: 2 },
      { from: 'c', to: 'b', when: 'input.n > 2', priority: 1 },
      { from: 'c', to: 'd', default: true, priority: -1 },
    ]);
    expect(await taken(definition, { n: 3 })).toEqual(['b']);
    expect(await taken(definition, { n: 2 })).toEqual(['a']);
    expect(await taken(definition, { n: 1 })).toEqual(['d']);
  });

  test('of any other node is every edge that is true or says nothing, and the default when none is true', async () => {
    const definition: Definition = {
      nodes: [
        { id: 'c', transform: { expression: 'input.n' } },
        { id: 'a', run },
        { id: 'b', run },
        { id: 'd', run },
      ],
      edges: [
        { from: 'c', to: 'a', when: 'output > 1' },
        { from: 'c', to: 'b' },
        { from: 'c', to: 'd', default: true },
      ],
    };
    expect(await taken(definition, { n: 2 })).toEqual(['a', 'b']);
    expect(await taken(definition, { n: 1 })).toEqual(['b', 'd']);
  });

  test('is told in the log with the values that made it', async () => {
    const { log } = await ended(
      {
        nodes: [
          { id: 'c', condition: {}, set_variables: { who: 'input.who' } },
          { id: 'a', run },
          { id: 'b', run },
        ],
        edges: [
          { from: 'c', to: 'a', when: 'input.n > 1' },
          { from: 'c', to: 'b', default: true },
        ],
      },
      { input: { n: 1, who: 'x'.repeat(300) } },
    );
    expect(log.find((line) => line.includes('is taken'))).toBe(
      `c: "input.n > 1" is false: a is not taken; no condition is met: b is taken; who is set to "${'x'.repeat(199)}…`,
    );
  });

  test('that is neither true nor false, or has no value, fails its node', async () => {
    const definition = condition([
      { from: 'c', to: 'a', when: 'input.n' },
      { from: 'c', to: 'b', default: true },
    ]);
    expect(await failed(definition, { input: { n: 1 } })).toBe('c: "input.n" is 1, neither true nor false');
    expect(await failed(definition)).toBe('c: "input.n" has no value: field not found: n; input is {}');
    expect(await failed(definition, { input: { n: { at: 1 }, other: 1 } })).toBe(
      'c: "input.n" is {"at":1}, neither true nor false',
    );
  });
});

describe('an expression that fails while running', () => {
  const of = (node: Definition, more: Definition = {}): Definition => ({ nodes: [{ id: 'a', ...node }], ...more });
  const text = 'input.score > 8';
  test.each<[string, Definition]>([
    ['a condition', { nodes: ['a', 'b'].map((id) => ({ id, run })), edges: [{ from: 'a', to: 'b', when: text }] }],
    ['an input', of({ run, input: { high: `\${${text}}` } })],
    ['an output', of({ run }, { output: { high: `\${${text}}` } })],
    ['a text', of({ run, input: { high: `it is \${${text}}` } })],
    ['the list of a map', of({ map: { items: `[${text}]`, run } })],
    ['a variable', of({ run, set_variables: { high: text } })],
    ['a time', of({ wait: { time: `${text} ? "" : ""` } })],
    ['a transform', of({ transform: { expression: text } })],
  ])('%s, is told with what it read and why', async (_, definition) => {
    const told = await failed(definition, { input: { score: 'high', other: 'secret' } });
    expect(told).toMatch(
      /"\[?input\.score > 8.*" has no value: found no matching overload .*; input\.score is "high"$/,
    );
    expect(told).not.toContain('secret');
  });
});

describe('a variable', () => {
  const sets = (value: string): Definition => ({
    nodes: [
      { id: 'a', run, set_variables: { v: value } },
      { id: 'b', run, input: { v: '${variables.v}' } },
    ],
    edges: [{ from: 'a', to: 'b' }],
  });

  test.each<[string, Json]>([
    ['a NUL', 'a\0b'],
    ['half a character', ['ok', '\ud800']],
    ['such a name', { list: [{ '\ud800': 1 }] }],
  ])('with %s cannot be stored', async (_, value) => {
    expect(await failed(sets('output.value'), { work: () => ({ value }) })).toContain(
      'with a character that cannot be stored',
    );
  });

  test.each<[Json]>([[null], [true], [1.5], [{ deep: [{ er: 'é𝕏' }, []] }]])('can be %j', async (value) => {
    const made = await ended(sets('output.value'), { work: () => ({ value }) });
    expect(made.inputs.get('b')).toEqual({ v: value });
  });

  test('that is set within maps is one of the run, or of the workflow that they are in', async () => {
    const graph = { nodes: [{ id: 'x', run, set_variables: { v: 'item' } }] };
    const maps: Definition = {
      nodes: [
        {
          id: 'm',
          map: { items: '[[1, 2]]', graph: { nodes: [{ id: 'n', map: { items: 'item', graph, concurrency: 1 } }] } },
        },
        { id: 'b', run, input: { v: '${variables.v}' } },
      ],
      edges: [{ from: 'm', to: 'b' }],
      variables: { v: 0 },
    };
    const inner = { name: 'inner', version: '1.0.0', ...maps };
    const made = await ended(
      {
        nodes: [
          { id: 'w', workflow: { name: 'inner' } },
          { id: 'after', run, input: { v: '${variables.v}' } },
        ],
        edges: [{ from: 'w', to: 'after' }],
        variables: { v: 'outer' },
      },
      { others: [inner] },
    );
    expect([made.inputs.get('w.b'), made.inputs.get('after')]).toEqual([{ v: 2 }, { v: 'outer' }]);
    expect((await ended(maps)).inputs.get('b')).toEqual({ v: 2 });
  });

  test('and those beside it have an end', async () => {
    const value = 'x'.repeat(MAX_VARIABLES_CHARS / 2);
    const definition: Definition = {
      nodes: [
        { id: 'a', run, set_variables: { v: 'output.value' } },
        { id: 'b', run, set_variables: { w: 'output.value' } },
      ],
      edges: [{ from: 'a', to: 'b' }],
    };
    expect(await failed(definition, { work: () => ({ value }) })).toBe(
      `b: with w the variables would take ${MAX_VARIABLES_CHARS + 15} characters, of at most ${MAX_VARIABLES_CHARS}`,
    );
  });
});

describe('values that are too large', () => {
  test('are not kept by a run, one by one', async () => {
    const transform = { nodes: [{ id: 'a', transform: { expression: 'input.text + input.text' } }] };
    expect(await failed(transform, { input: { text: 'x'.repeat(4 * MIB) } })).toBe(
      `a: the value takes ${8 * MIB + 2} bytes as JSON, of at most ${8 * MIB}`,
    );
  });

  test('nor together', async () => {
    const nodes = Array.from({ length: 11 }, (_, i) => ({ id: `n${i}`, transform: { expression: 'input.text' } }));
    const edges = nodes.slice(1).map(({ id }, i) => ({ from: `n${i}`, to: id }));
    const made = await ended({ nodes, edges }, { input: { text: 'x'.repeat(6 * MIB) } });
    expect(made.instance('n9').state).toBe('SUCCEEDED');
    expect(made.instance('').error?.message).toBe(
      `n10: its value of ${6 * MIB + 2} characters is too much beside the ${10 * (6 * MIB + 2)} that the run keeps, of at ` +
        `most ${MAX_KEPT_CHARS}; let a node that runs code make it: outputs of executions do not count`,
    );
  });

  test('are not brought by a signal', async () => {
    const made = new InMemoryRun({ nodes: [{ id: 's', signal: {} }] });
    await vi.waitFor(() => expect(made.instance('s').state).toBe('WAITING'));
    made.post({ type: 'signalled', path: 's', payload: { json: `"${'x'.repeat(MAX_KEPT_CHARS)}"` } });
    expect((await made.end()).instance('').error?.message).toContain('s: its value of 67108866 characters is too much');
  });

  test('are read no further than they fit, and the one that does not is named', async () => {
    const items = 100;
    const definition: Definition = {
      nodes: [
        { id: 'm', map: { items: 'input.list', run } },
        { id: 'size', transform: { expression: 'size(nodes.m.output)' } },
      ],
      edges: [{ from: 'm', to: 'size' }],
    };
    const made = await ended(definition, {
      input: { list: Array.from({ length: items }, (_, i) => i) },
      work: () => ({ text: 'x'.repeat(MIB - 11) }),
    });
    expect(made.instance('size').error?.message).toBe(
      `the outputs that it reads take more than ${MAX_READ_BYTES} bytes together, with ${MIB} of "m[16]"; ` +
        'name fewer, or let nodes put large values elsewhere and hand on where they are',
    );
    // Those of the last ones were in memory still.
    expect(made.reads).toBeLessThan(21);
  });

  test('are read once where several expressions name them', async () => {
    const made = await ended(
      {
        nodes: [
          { id: 'a', run },
          {
            id: 'b',
            transform: { expression: 'nodes.a.output.n' },
          },
          { id: 'c', run, input: { one: '${nodes.a.output.n}', two: '${nodes["a"].output.n + 1}' } },
        ],
        edges: [
          { from: 'a', to: 'b', when: 'nodes.a.output.n == output.n' },
          { from: 'b', to: 'c' },
        ],
      },
      { work: (_, path) => (path === 'a' ? { n: 1, text: 'x'.repeat(9 * MIB) } : {}) },
    );
    expect(made.inputs.get('c')).toEqual({ one: 1, two: 2 });
    // For the edge, for the transform, and for the input: it is too large to be kept in memory.
    expect(made.reads).toBe(3);
  });
});

test('an output that is not kept any more fails the node that names it', async () => {
  const { run: definition } = { run };
  const made = new InMemoryRun(
    {
      nodes: [
        { id: 'a', run: definition },
        { id: 's', signal: {} },
        { id: 'b', transform: { expression: 'nodes.a.output' } },
      ],
      edges: [
        { from: 'a', to: 'b' },
        { from: 's', to: 'b' },
      ],
    },
    { work: () => ({ text: 'x'.repeat(5 * MIB) }) },
  );
  await vi.waitFor(() => expect(made.instance('a').state).toBe('SUCCEEDED'));
  made.forgetExecutions();
  made.post({ type: 'signalled', path: 's', payload: { json: '{}' } });
  expect((await made.end()).instance('b').error?.message).toBe(
    'the output of execution execution of workflow/run/a#1 is not kept any more',
  );
});
