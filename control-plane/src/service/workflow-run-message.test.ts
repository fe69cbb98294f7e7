import { expect, test } from 'vitest';
import type { WorkflowNodeRow } from '../db/queries/workflow-runs.ts';
import { type NodeState, newInstance, ROOT } from '../workflow/run-state.ts';
import { encodeInstance } from '../workflow/stored-step.ts';
import { graphOf } from '../workflow/test-support/simulate.ts';
import { criticalPath } from './workflow-run-message.ts';

/** When a node began and ended; one number: when it was passed over. */
type Times = readonly [startMs: number, endMs: number] | number;

/** The critical path of nodes that join as they say. @param edges like `a -> b` */
function pathOf(nodes: Record<string, { times: Times; join?: string }>, edges: string[]): string[] {
  const graph = graphOf({
    name: 'w',
    version: '1.0.0',
    nodes: Object.entries(nodes).map(([id, { join = 'ALL' }]) => ({ id, join, condition: {} })),
    edges: edges.map((edge) => {
      const [from = '', to = ''] = edge.split(' -> ');
      return { from, to };
    }),
  });
  const rows = Object.entries(nodes).map(([path, { times }]): WorkflowNodeRow => {
    const state: NodeState = typeof times === 'number' ? 'SKIPPED' : 'SUCCEEDED';
    const [startMs, endMs] = typeof times === 'number' ? [undefined, times] : times;
    const instance = encodeInstance({ ...newInstance(path, ROOT), state, startMs, endMs });
    return { path, instance, input_json: null, output_json: null, execution_id: null, revision: 1 };
  });
  return criticalPath(graph, rows);
}

test('the critical path goes back from the end, to what each node had to wait for', () => {
  const nodes = {
    a: { times: [0, 10] },
    b: { times: [10, 30] },
    c: { times: [10, 20] },
    d: { times: [30, 40] },
  } as const;
  expect(pathOf(nodes, ['a -> b', 'a -> c', 'b -> d', 'c -> d'])).toEqual(['a', 'b', 'd']);
  expect(pathOf({}, [])).toEqual([]);
});

test('what ended after a node that joins ANY had begun did not make it late', () => {
  const nodes = {
    a: { times: [0, 1] },
    b: { times: [0, 100] },
    c: { times: [1, 200], join: 'ANY' },
  } as const;
  expect(pathOf(nodes, ['a -> c', 'b -> c'])).toEqual(['a', 'c']);
  expect(pathOf({ ...nodes, b: { times: [0, 300] } }, ['a -> c', 'b -> c']), 'nor does it go on from there').toEqual([
    'b',
  ]);
});

test('what was passed over is not named, and the path leads through it to what decided that', () => {
  const nodes = {
    a: { times: [0, 5] },
    slow: { times: [0, 50] },
    no: { times: 50 },
    end: { times: [50, 60] },
  } as const;
  expect(pathOf(nodes, ['a -> end', 'slow -> no', 'no -> end'])).toEqual(['slow', 'end']);
});
