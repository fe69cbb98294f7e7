// biome-ignore-all lint/suspicious/noTemplateCurlyInString: that is what templates look like
import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import { WorkflowSchema } from '@harrier/shared/gen/workflow';
import { describe, expect, test } from 'vitest';
import { checkWorkflow } from './check-workflow.ts';

const run = { module: 'm' };

function check(definition: Record<string, JsonValue>) {
  const workflow = fromJson(WorkflowSchema, { name: 'w', version: '1.0.0', ...definition });
  const { problems, warnings } = checkWorkflow(workflow, (schema) => {
    if (JSON.stringify(schema).includes('bad')) throw new Error('it is bad');
  });
  const told = (list: typeof problems) => list.map(({ path, message }) => `${path}: ${message}`);
  return { problems: told(problems), warnings: told(warnings) };
}

const deep = (levels: number): JsonValue => (levels === 0 ? 1 : { a: deep(levels - 1) });
const TOO_DEEP = (path: string, levels: number) => `${path}${'.a'.repeat(levels)}: nested deeper than ${levels} levels`;

const nodes = (...ids: string[]) => ids.map((id) => ({ id, run }));

test('a workflow that is right has no problems', () => {
  const { problems, warnings } = check({
    nodes: [
      { id: 'load', run, input: { from: '${input.url}' }, set_variables: { count: 'output.count' } },
      {
        id: 'each',
        map: {
          items: 'nodes.load.output.files',
          graph: {
            nodes: [{ id: 'one', run, input: '${item}' }],
            output: { one: '${nodes.one.output}', of: '${nodes.load.output.name}' },
          },
        },
      },
      { id: 'big', condition: {} },
      { id: 'report', run },
      { id: 'ask', signal: { schema: { type: 'object' } }, timeout: '60s' },
      { id: 'pause', wait: { duration: '1s' } },
      { id: 'some', map: { items: 'input.list', run }, input: { n: '${item}', i: '${index}' } },
    ],
    edges: [
      { from: 'load', to: 'each' },
      { from: 'each', to: 'big' },
      { from: 'big', to: 'ask', when: 'size(nodes.each.output) > 10' },
      { from: 'big', to: 'report', default: true },
    ],
    output: { n: '${variables.count}', all: '${nodes.each.output}' },
    variables: { count: 0 },
  });
  expect([problems, warnings]).toEqual([[], []]);
});

describe('what is wrong is told with its path', () => {
  test.each<[string, Record<string, JsonValue>, string]>([
    ['variables that are nested too deeply', { nodes: nodes('a'), variables: deep(33) }, TOO_DEEP('variables', 32)],
    ['a template that is', { nodes: nodes('a'), output: deep(33) }, TOO_DEEP('output', 32)],
    [
      'a template within a map, which is a level less deep',
      { nodes: [{ id: 'm', map: { items: '[1]', graph: { nodes: [{ id: 'one', run, input: deep(32) }] } } }] },
      TOO_DEEP('nodes[0].map.graph.nodes[0].input', 31),
    ],
    [
      'a number beyond a double',
      { nodes: [{ id: 'a', run, input: { n: Number.POSITIVE_INFINITY } }] },
      'nodes[0].input: google.protobuf.Value cannot be NaN or Infinity',
    ],
    [
      'a cycle',
      {
        nodes: nodes('s', 'a', 'b', 'c'),
        edges: [
          { from: 's', to: 'a' },
          { from: 'a', to: 'b' },
          { from: 'b', to: 'c' },
          { from: 'c', to: 'a' },
        ],
      },
      'edges: the edges lead in a circle: a → b → c → a',
    ],
    [
      'an edge to itself',
      { nodes: nodes('a'), edges: [{ from: 'a', to: 'a' }] },
      'edges: the edges lead in a circle: a → a',
    ],
    [
      'nodes that cannot be reached: those that no way leads to from a node without edges into it are behind a cycle',
      {
        nodes: nodes('a', 'b', 'c', 'd'),
        edges: [
          { from: 'b', to: 'c' },
          { from: 'c', to: 'b' },
          { from: 'c', to: 'd' },
        ],
      },
      'edges: the edges lead in a circle: b → c → b',
    ],
    ['an id twice', { nodes: nodes('a', 'a') }, 'nodes[1].id: "a" is also the id of nodes[0]'],
    ['an unknown node', { nodes: nodes('a'), edges: [{ from: 'a', to: 'b' }] }, 'edges[0].to: there is no node "b"'],
    [
      'an edge twice',
      {
        nodes: nodes('a', 'b'),
        edges: [
          { from: 'a', to: 'b' },
          { from: 'a', to: 'b' },
        ],
      },
      'edges[1]: edges[0] leads from "a" to "b" too',
    ],
    [
      'an expression',
      { nodes: [{ id: 'a', transform: { expression: '1 +' } }] },
      'nodes[0].transform.expression: "1 +" is not an expression: at character 3',
    ],
    [
      'a name',
      { nodes: [{ id: 'a', transform: { expression: 'inputs.x' } }] },
      'nodes[0].transform.expression: "inputs.x" names inputs, which is none of input, variables, nodes, run',
    ],
    [
      'a node that there is not',
      { nodes: [{ id: 'a', run, input: '${nodes.b.output}' }] },
      'nodes[0].input: "nodes.b.output" names the node "b", which there is not',
    ],
    [
      'a node that comes later',
      {
        nodes: [
          { id: 'a', run, input: '${nodes.b.output}' },
          { id: 'b', run },
        ],
      },
      'nodes[0].input: "nodes.b.output" names the node "b", which need not have ended by then',
    ],
    ['an item outside of a map', { nodes: [{ id: 'a', transform: { expression: 'item' } }] }, '"item" names item'],
    [
      'two defaults',
      {
        nodes: nodes('a', 'b', 'c'),
        edges: [
          { from: 'a', to: 'b', default: true },
          { from: 'a', to: 'c', default: true },
        ],
      },
      'nodes[0]: 2 edges of "a" are its default; one can be',
    ],
    [
      'a condition whose edge has none',
      { nodes: [{ id: 'c', condition: {} }, ...nodes('a')], edges: [{ from: 'c', to: 'a' }] },
      'nodes[0]: the edge from the condition "c" to "a" needs "when"',
    ],
    [
      'an input of a run at the wrong place',
      { nodes: [{ id: 'a', run: { module: 'm', input: {} } }] },
      'nodes[0].run: the input stands in "input" of the node',
    ],
    [
      'an input of what takes none',
      { nodes: [{ id: 'a', signal: {}, input: {} }] },
      'nodes[0].input: a signal takes no input',
    ],
    ['a schema', { nodes: [{ id: 'a', signal: { schema: { bad: true } } }] }, 'nodes[0].signal.schema: it is bad'],
    [
      'a node within a map',
      { nodes: [{ id: 'm', map: { items: 'input.x', graph: { nodes: nodes('m') } } }] },
      'nodes[0].map.graph.nodes[0].id: "m" is also the id of a node around this graph',
    ],
    ['a run of nothing', { nodes: [{ id: 'a', run: {} }] }, 'nodes[0].run: one of module, code, command and image'],
    [
      'a key, which the run makes itself',
      { nodes: [{ id: 'a', run: { module: 'm', idempotency_key: 'k' } }] },
      'nodes[0].run.idempotency_key: the key of a node is made by the run',
    ],
    [
      'a default with a condition',
      { nodes: nodes('a', 'b'), edges: [{ from: 'a', to: 'b', when: 'true', default: true }] },
      'nodes[0]: the default edge of "a" has a condition',
    ],
    [
      'a default of nothing',
      { nodes: nodes('a', 'b'), edges: [{ from: 'a', to: 'b', default: true }] },
      'nodes[0]: "a" has a default edge and none with a condition',
    ],
    [
      'an edge from nowhere',
      { nodes: nodes('a'), edges: [{ from: 'b', to: 'a' }] },
      'edges[0].from: there is no node "b"',
    ],
    ['a schema of the input', { nodes: nodes('a'), input_schema: { bad: true } }, 'input_schema: it is bad'],
    [
      'the time of a wait',
      { nodes: [{ id: 'a', wait: { time: 'tomorrow' } }] },
      'nodes[0].wait.time: "tomorrow" names tomorrow',
    ],
    [
      'what a node within a map names',
      {
        nodes: [
          { id: 'm', map: { items: 'input.x', graph: { nodes: [{ id: 'x', run, input: '${nodes.z.output}' }] } } },
          ...nodes('z'),
        ],
      },
      'nodes[0].map.graph.nodes[0].input: "nodes.z.output" names the node "z", which need not have ended by then',
    ],
    [
      'what is set from a node beside it',
      { nodes: [{ id: 'a', run, set_variables: { v: 'nodes.b.output' } }, ...nodes('b')] },
      'nodes[0].set_variables.v: "nodes.b.output" names the node "b", which need not have ended by then',
    ],
    [
      'a node that there is not, beside a cycle',
      {
        nodes: [{ id: 'a', run, input: '${nodes.a.output}' }, ...nodes('b')],
        edges: [
          { from: 'a', to: 'b' },
          { from: 'b', to: 'a' },
        ],
      },
      'edges: the edges lead in a circle: a → b → a',
    ],
    [
      'the run of a map',
      { nodes: [{ id: 'm', map: { items: 'input.x', run: {} } }] },
      'nodes[0].map.run: one of module',
    ],
    ['a schema that is nested too deeply', { nodes: nodes('a'), input_schema: deep(33) }, TOO_DEEP('input_schema', 32)],
    [
      'the output of a map',
      {
        nodes: [
          { id: 'm', map: { items: '[1]', graph: { nodes: nodes('x'), output: '${nodes.z.output}' } } },
          ...nodes('z'),
        ],
      },
      'nodes[0].map.graph.output: "nodes.z.output" names the node "z", which need not have ended by then',
    ],
    ['the output', { nodes: nodes('a'), output: '${nodes.b.output}' }, 'output: "nodes.b.output" names the node "b"'],
  ])('%s', (_, definition, problem) => {
    expect(check(definition).problems).toEqual([expect.stringContaining(problem)]);
  });

  test('maps too deep in one another', () => {
    const graph = (depth: number): JsonValue => ({
      nodes: [depth === 0 ? { id: 'x', run } : { id: `m${depth}`, map: { items: 'input.x', graph: graph(depth - 1) } }],
    });
    expect(check(graph(8) as Record<string, JsonValue>).problems).toEqual([]);
    expect(check(graph(9) as Record<string, JsonValue>).problems).toEqual([
      expect.stringContaining('.map: maps are more than 8 deep in one another'),
    ]);
  });

  test('more nodes than there may be', () => {
    const graph = { nodes: nodes(...Array.from({ length: 2_501 }, (_, i) => `x${i}`)) };
    const maps = ['a', 'b'].map((id) => ({ id, map: { items: 'input.x', graph } }));
    expect(check({ nodes: maps }).problems).toEqual(['nodes[1].map.graph.nodes: there are more than 5000 nodes']);
  });
});

test('a condition without a default edge is a warning', () => {
  const definition = {
    nodes: [{ id: 'c', condition: {} }, ...nodes('a')],
    edges: [{ from: 'c', to: 'a', when: 'input.x' }],
  };
  expect(check(definition)).toEqual({
    problems: [],
    warnings: [expect.stringContaining('nodes[0]: the condition "c" has no default edge')],
  });
});
