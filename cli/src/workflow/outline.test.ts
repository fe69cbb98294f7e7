import { create, fromJson, type JsonValue } from '@bufbuild/protobuf';
import { type WorkflowRunNode, WorkflowRunNodeSchema, WorkflowSchema } from '@harrier/shared/gen/workflow';
import { expect, test } from 'vitest';
import { outlineOf, RunNodes } from './outline.ts';

const edges = (...texts: string[]): JsonValue[] =>
  texts.map((text) => {
    const [from = '', to = ''] = text.split(' -> ');
    return { from, to };
  });
const outline = (definition: { nodes: JsonValue[]; edges?: JsonValue[] }) =>
  outlineOf(fromJson(WorkflowSchema, { name: 'w', version: '1.0.0', ...definition }));
const signals = (...ids: string[]): JsonValue[] => ids.map((id) => ({ id, signal: {} }));
const node = (path: string): WorkflowRunNode => create(WorkflowRunNodeSchema, { path });

test('each node is behind those that it waits for, as they are written where that is so', () => {
  const written = outline({ nodes: signals('a', 'b', 'c', 'd'), edges: edges('a -> c', 'b -> d') });
  expect([...written.keys()]).toEqual(['a', 'b', 'c', 'd']);
  const turned = outline({ nodes: signals('end', 'b', 'a', 'c'), edges: edges('a -> b', 'b -> end', 'c -> end') });
  expect([...turned].map(([id, { after }]) => [id, after])).toEqual([
    ['a', []],
    ['b', ['a']],
    ['c', []],
    ['end', ['b', 'c']],
  ]);
});

test('a chain of as many nodes as a workflow may have, written from its end', () => {
  const ids = Array.from({ length: 5_000 }, (_, i) => `n${i}`);
  const chain = ids.slice(1).map((id, i) => `n${i} -> ${id}`);
  const found = outline({ nodes: signals(...ids.toReversed()), edges: edges(...chain) });
  expect([...found.keys()]).toEqual(ids);
});

test('what was not reached stands in its place, and what is within others below them, in its order', () => {
  const graph = { nodes: signals('y', 'x'), edges: edges('x -> y') };
  const nodes = new RunNodes(
    outline({
      nodes: [...signals('a'), { id: 'm', map: { items: '[1]', graph } }, ...signals('z')],
      edges: edges('a -> m', 'm -> z'),
    }),
  );
  for (const path of ['a', 'm', 'm[10]', 'm[10].x', 'm[2]', 'm[2].x', 'm[2].y', 'm[2].x.of.another', 'gone']) {
    nodes.set(node(path));
  }
  expect(
    nodes.rows().map(({ path, depth, after, node: { path: reached } = {} }) => [path, depth, after, reached]),
  ).toEqual([
    ['a', 0, [], 'a'],
    ['m', 0, ['a'], 'm'],
    ['m[2]', 1, [], 'm[2]'],
    ['m[2].x', 2, [], 'm[2].x'],
    ['m[2].x.of', 3, [], undefined],
    ['m[2].x.of.another', 4, [], 'm[2].x.of.another'],
    ['m[2].y', 2, ['x'], 'm[2].y'],
    ['m[10]', 1, [], 'm[10]'],
    ['m[10].x', 2, [], 'm[10].x'],
    ['z', 0, ['m'], undefined],
    ['gone', 0, [], 'gone'],
  ]);
});
