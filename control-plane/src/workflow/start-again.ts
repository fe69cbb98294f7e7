import type { Draft } from './draft.ts';
import type { Graph, GraphNode } from './graph.ts';
import { childPath, continuesAfter, graphWithin, type Instance, isFinal, itemCount, itemPath } from './run-state.ts';

/**
 * Takes the nodes of a graph back to where they were before they were reached.
 * @param owner path of what the graph is within
 * @param keeps what succeeded, or failed and was tolerated, stays as it is, also within maps and workflows
 */
export function takeBackWithin(draft: Draft, graph: Graph, owner: string, keeps: boolean): void {
  for (const node of graph.nodes.values()) takeBack(draft, childPath(owner, node.id), node, keeps);
}

/** Another try of an instance begins with nothing of the one before. */
export function forgetTry(draft: Draft, graph: Graph, instance: Instance): void {
  instance.input = undefined;
  instance.variables = undefined;
  const within = graphWithin(graph, instance.path);
  if (within !== undefined) takeBackWithin(draft, within, instance.path, false);
}

function takeBack(draft: Draft, path: string, node: GraphNode, keeps: boolean): void {
  if (draft.read(path) === undefined) return;
  const instance = draft.write(path);
  instance.arrived = 0;
  instance.taken = 0;
  instance.kept = false;
  if (keeps && isGood(node, instance)) {
    instance.kept = true;
    return;
  }
  Object.assign(instance, {
    ...{ state: 'PENDING', phase: 'none', stopping: undefined, error: undefined, output: undefined },
    ...{ startMs: undefined, endMs: undefined, dueMs: undefined, deadlineMs: undefined },
    ...{ decided: undefined, undecided: false, active: 0, begun: 0, failed: 0 },
    triesBefore: instance.tries,
    resets: instance.resets + 1,
  });
  if (node.kind === 'map' && instance.item === undefined) {
    for (let i = 0; i < itemCount(instance); i++) takeBack(draft, itemPath(path, i), node, keeps);
    if (!keeps) instance.items = undefined;
  } else if (node.body !== undefined) takeBackWithin(draft, node.body, path, keeps);
  if (keeps) return;
  instance.input = undefined;
  instance.variables = undefined;
}

function isGood(node: GraphNode, { state }: Instance): boolean {
  return state === 'SUCCEEDED' || (isFinal(state) && continuesAfter(node, state));
}
