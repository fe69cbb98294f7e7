import type { Draft } from './draft.ts';
import type { GraphNode } from './graph.ts';
import { type Instance, itemCount, itemPath } from './run-state.ts';

/** Instances that the items of a map will be, from the first that was not begun to one, without those that there are. */
export function itemsToEnter(draft: Draft, map: Instance, node: GraphNode, to: number): number {
  let items = 0;
  for (let i = map.begun; i < to; i++) if (draft.read(itemPath(map.path, i)) === undefined) items++;
  return items * (1 + (node.body?.nodes.size ?? 0));
}

/** What is told of a map that has collected failures; undefined: none of its items failed. */
export function itemsFailed(map: Instance): string | undefined {
  return map.failed === 0 ? undefined : `${map.failed} of ${itemCount(map)} items failed`;
}
