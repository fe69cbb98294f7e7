import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { createContext, runInContext } from 'node:vm';
import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import { WorkflowSchema } from '@harrier/shared/gen/workflow';
import { describe, expect, test } from 'vitest';
import { formatMermaid } from './mermaid.ts';

const flowchart = (definition: { nodes: JsonValue[]; edges?: JsonValue[] }) =>
  formatMermaid(fromJson(WorkflowSchema, { name: 'w', version: '1.0.0', ...definition }));

test('a graph becomes a flowchart, with maps as subgraphs, and nothing in it ends a text', () => {
  const text = flowchart({
    nodes: [
      { id: 'load-data', run: { module: 'load' } },
      { id: 'ok', condition: {} },
      {
        id: 'each',
        map: {
          items: 'nodes["load-data"].output',
          graph: {
            nodes: [
              { id: 'x', signal: {} },
              { id: 'y', wait: { duration: '1s' } },
            ],
            edges: [{ from: 'x', to: 'y' }],
          },
        },
      },
    ],
    edges: [
      { from: 'load-data', to: 'ok' },
      { from: 'ok', to: 'each', when: 'size(input.x) > 1\n  && input.y == "#quot;"' },
    ],
  });
  expect(text).toBe(`flowchart TD
  n0["load-data: load"]
  n1{"ok: condition"}
  subgraph n2["each: for each of nodes[#quot;load-data#quot;].output"]
    n2_0[/"x: signal"/]
    n2_1(["y: wait"])
    n2_0 --> n2_1
  end
  n0 --> n1
  n1 -->|"size(input.x) #gt; 1 #amp;#amp; input.y == #quot;#35;quot;#quot;"| n2
`);
});

describe('what Mermaid reads of a flowchart', () => {
  const when = '"|" + input.a["%%{init: {}}%%"] == \'#35;\'\n  && input.b < 1 ? true : nodes["end"].output';
  const words = ['end', 'subgraph', 'graph', 'style', 'default', 'click', 'x', 'o', 'a-b', 'a_b', '_', 'm_a', 'm-0'];
  const signals = (...ids: string[]): JsonValue[] => ids.map((id) => ({ id, signal: {} }));

  test('is the graph, whatever its nodes are called and its expressions hold', async () => {
    const nodes = signals(...words);
    const edges = words.slice(1).map((to, i) => ({ from: words[i] ?? '', to }));
    const read = await readFlowchart(flowchart({ nodes, edges: [...edges, { from: 'end', to: 'o', when }] }));
    expect(read.nodes).toEqual(words.map((id) => `${id}: signal`));
    expect(read.edges).toEqual([
      ...edges.map(({ from, to }) => [`${from}: signal`, '', `${to}: signal`]),
      ['end: signal', when.replace(/\s+/g, ' '), 'o: signal'],
    ]);
  });

  test('is each kind of node, and maps with what is within them', async () => {
    const inner = { nodes: signals('a', 'end'), edges: [{ from: 'a', to: 'end' }] };
    const outer = {
      nodes: [{ id: 'deep', map: { items: '[1]', graph: inner } }, ...signals('b')],
      edges: [{ from: 'deep', to: 'b' }],
    };
    const read = await readFlowchart(
      flowchart({
        nodes: [
          { id: 'r', run: { command: { argv: ['true'] } } },
          { id: 'c', condition: {} },
          { id: 'w', workflow: { name: 'other' } },
          { id: 't', wait: { duration: '1s' } },
          { id: 'f', transform: { expression: '1' } },
          { id: 'i', map: { items: 'input["list"]', run: { module: 'm' } } },
          { id: 'm', map: { items: '[2]', graph: outer } },
        ],
        edges: [
          { from: 'c', to: 'm', default: true },
          { from: 'm', to: 'f' },
        ],
      }),
    );
    expect(read.nodes.toSorted()).toEqual(
      [
        ...['r: command', 'c: condition', 'w: other', 't: wait', 'f: transform', 'i: for each of input["list"]'],
        ...['a: signal', 'end: signal', 'b: signal'],
      ].toSorted(),
    );
    expect(read.maps).toEqual({
      'deep: for each of [1]': ['a: signal', 'end: signal'],
      'm: for each of [2]': ['b: signal', 'deep: for each of [1]'],
    });
    expect(read.edges).toEqual([
      ['a: signal', '', 'end: signal'],
      ['deep: for each of [1]', '', 'b: signal'],
      ['c: condition', 'default', 'm: for each of [2]'],
      ['m: for each of [2]', '', 'f: transform'],
    ]);
  });
});

interface Mermaid {
  parse(text: string): Promise<unknown>;
  mermaidAPI: { getDiagramFromText(text: string): Promise<{ db: FlowDb }> };
}

interface FlowDb {
  getVertices(): Map<string, { id: string; text?: string }>;
  getEdges(): { start: string; end: string; text: string }[];
  getSubGraphs(): { id: string; title: string; nodes: string[] }[];
}

/** Mermaid itself, as a page loads it. It cleans texts by the page's document, of which there is as much as says that it cannot. */
const mermaid = (() => {
  const file = fileURLToPath(import.meta.resolve('@mermaid-js/tiny'));
  const window = { document: { nodeType: 9, implementation: {}, createElement: () => ({}) }, Element: class {} };
  const context = createContext({ window, console, structuredClone, setTimeout, clearTimeout });
  runInContext(readFileSync(file, 'utf8'), context);
  return (context as unknown as { mermaid: Mermaid }).mermaid;
})();

/** The texts of its nodes, what each map holds, and its edges: from, text, to. @throws what is wrong with it */
async function readFlowchart(
  text: string,
): Promise<{ nodes: string[]; maps: Record<string, string[]>; edges: string[][] }> {
  await mermaid.parse(text);
  const { db } = await mermaid.mermaidAPI.getDiagramFromText(text);
  const maps = db.getSubGraphs();
  const titles = new Map(maps.map(({ id, title }) => [id, decoded(title)]));
  const texts = new Map([...db.getVertices().values()].map((node) => [node.id, decoded(node.text ?? '')]));
  const nameOf = (id: string) => titles.get(id) ?? texts.get(id) ?? `nothing is called ${id}`;
  return {
    nodes: [...texts].flatMap(([id, shown]) => (titles.has(id) ? [] : [shown])),
    maps: Object.fromEntries(maps.map(({ id, nodes }) => [nameOf(id), nodes.map(nameOf).toSorted()])),
    edges: db.getEdges().map((edge) => [nameOf(edge.start), decoded(edge.text), nameOf(edge.end)]),
  };
}

/** Mermaid puts characters of its own around entities, until it draws them. */
function decoded(text: string): string {
  const entities: Record<string, string> = { quot: '"', amp: '&', lt: '<', gt: '>', '°35': '#', '°37': '%' };
  return text.replace(/ﬂ°(.*?)¶ß/g, (_, entity: string) => entities[entity] ?? `no entity: ${entity}`);
}
