import { create } from '@bufbuild/protobuf';
import {
  WorkflowRunNode_State as State,
  type WorkflowRunNode,
  WorkflowRunNodeSchema,
  WorkflowSchema,
} from '@harrier/shared/gen/workflow';
import { expect, test } from 'vitest';
import { formatMermaid } from './mermaid.ts';
import { drawProgress, progressLines } from './progress.ts';

const node = (path: string, state: State, more: Partial<WorkflowRunNode> = {}) =>
  create(WorkflowRunNodeSchema, { path, state, kind: 'run', ...more } as never);

test('a graph becomes a flowchart, with maps as subgraphs, and nothing in it ends a text', () => {
  const workflow = create(WorkflowSchema, {
    nodes: [
      { id: 'load-data', kind: { case: 'run', value: { target: { case: 'module', value: 'load' } } } },
      { id: 'ok', kind: { case: 'condition', value: {} } },
      {
        id: 'each',
        kind: {
          case: 'map',
          value: {
            items: 'nodes["load-data"].output',
            body: {
              case: 'graph',
              value: {
                nodes: [
                  { id: 'x', kind: { case: 'signal', value: {} } },
                  { id: 'y', kind: { case: 'wait', value: {} } },
                ],
                edges: [{ from: 'x', to: 'y' }],
              },
            },
          },
        },
      },
    ],
    edges: [
      { from: 'load-data', to: 'ok' },
      { from: 'ok', to: 'each', when: 'size(input.x) > 1' },
    ],
  });
  expect(formatMermaid(workflow)).toBe(`flowchart TD
  load_data["load-data: load"]
  ok{"ok: condition"}
  subgraph each["each: for each of nodes[#quot;load-data#quot;].output"]
    each_x[/"x: signal"/]
    each_y(["y: wait"])
    each_x --> each_y
  end
  load_data --> ok
  ok -->|"size(input.x) #gt; 1"| each
`);
});

test('progress is drawn over what was drawn, and says what a node waits for and why it failed', async () => {
  const written: string[] = [];
  const nodes = [
    node('a', State.SUCCEEDED),
    node('b', State.WAITING, { waitingReason: 'for a signal' }),
    node('c', State.FAILED, { tries: 2, error: { message: 'no\u001b[2J\nat all' } as never }),
  ];
  const drawn = await drawProgress(nodes, 2, async (text) => void written.push(text));
  expect(drawn).toBe(3);
  expect(written.join('')).toBe(
    '\x1b[2A\x1b[2K✔ a  run\n\x1b[2K◌ b  run, waits for a signal\n\x1b[2K✘ c  run, try 2, no at all\n',
  );
});

test('of many nodes those are shown that run or failed', () => {
  const many = Array.from({ length: 100 }, (_, i) => node(`n${i}`, i === 90 ? State.RUNNING : State.SUCCEEDED));
  const lines = progressLines(many);
  expect(lines).toHaveLength(31);
  expect(lines).toContain('▶ n90  run');
  expect(lines.at(-1)).toBe('… and 70 more that are over or wait');
});
