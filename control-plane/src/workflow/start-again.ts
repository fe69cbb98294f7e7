import type { Draft } from './draft.ts';
import type { Graph, GraphNode } from './graph.ts';
import { childPath, continuesAfter, graphWithin, type Instance, isFinal, itemCount, itemPath } from './run-state.ts';

/**
 * Takes the nodes of a graph back to where they were before they were reached.
 * @param owner path of what the graph is within
 * @param keeps what succeeded, or failed and was tolerated, stays as it is, also within maps and workflows; but for what came
 *   behind something that does not stay, as what cleaned up after the failure: it was made of what there was then
 */
export function takeBackWithin(draft: Draft, graph: Graph, owner: string, keeps: boolean): void {
  /** Nodes that will be as they were. */
  const same = new Set<string>();
  for (const node of inOrder(graph)) {
    const path = childPath(owner, node.id);
    const wasSkipped = draft.read(path)?.state === 'SKIPPED';
    const sameBefore = keeps && isSameBefore(node, same);
    takeBack(draft, path, node, sameBefore);
    const instance = draft.read(path);
    // What was not decided yet may set variables.
    if (instance?.kept ? !instance.undecided : sameBefore && wasSkipped) same.add(node.id);
  }
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

/** Whether what a node was begun by will be as it was: all before it, or one of them for a join that waits for no more. */
function isSameBefore({ join, predecessors }: GraphNode, same: ReadonlySet<string>): boolean {
  const isSame = (id: string) => same.has(id);
  return join === 'any' && predecessors.length > 0 ? predecessors.some(isSame) : predecessors.every(isSame);
}

/** The nodes of a graph, each behind those before it. */
function* inOrder({ roots, nodes }: Graph): Iterable<GraphNode> {
  const ready = [...roots];
  const decided = new Map<string, number>();
  for (const node of ready) {
    yield node;
    for (const { to } of node.outgoing) {
      const next = nodes.get(to);
      const count = (decided.get(to) ?? 0) + 1;
      decided.set(to, count);
      if (count === next?.incoming) ready.push(next);
    }
  }
}

/** The policies of a map are its own: of its items none is tolerated. */
function isGood(node: GraphNode, { state, item }: Instance): boolean {
  return state === 'SUCCEEDED' || (item === undefined && isFinal(state) && continuesAfter(node, state));
}
