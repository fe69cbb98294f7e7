import type { Draft } from './draft.ts';
import type { Graph } from './graph.ts';
import { childPath, graphWithin, type Instance, nodeOf } from './run-state.ts';

/**
 * Whether something cleans up within an instance that is being stopped, or will when what runs has ended. Everything else in it is
 * being stopped already: whoever wants its end then changes nothing, least of all that it has failed.
 */
export function cleansUpWithin(draft: Draft, graph: Graph, instance: Instance): boolean {
  if (instance.stopping === 'FAILED' && waitsToCleanUp(draft, graph, instance)) return true;
  for (const child of draft.openChildren(instance.path)) {
    if (child.stopping === undefined || cleansUpWithin(draft, graph, child)) return true;
  }
  return false;
}

function waitsToCleanUp(draft: Draft, graph: Graph, { path, item }: Instance): boolean {
  // What is within a map are its items: the graph is theirs.
  if (item === undefined && nodeOf(graph, path)?.kind === 'map') return false;
  for (const { id, join } of graphWithin(graph, path)?.nodes.values() ?? []) {
    if (join === 'all_done' && (draft.read(childPath(path, id))?.state ?? 'PENDING') === 'PENDING') return true;
  }
  return false;
}
