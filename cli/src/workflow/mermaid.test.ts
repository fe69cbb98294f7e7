import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import { WorkflowSchema } from '@harrier/shared/gen/workflow';
import { expect, test } from 'vitest';
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
