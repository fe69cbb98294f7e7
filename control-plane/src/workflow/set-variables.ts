import type { Draft } from './draft.ts';
import type { Graph } from './graph.ts';
import { tooLargeVariables } from './run-limits.ts';
import { type Instance, type NodeError, nodeAt, ownerOf, ROOT } from './run-state.ts';

/**
 * Sets variables on the word of a node. They belong to the run, or to the workflow within it.
 * @returns why they cannot be set
 */
export function setVariables(
  draft: Draft,
  graph: Graph,
  instance: Instance,
  variables: Readonly<Record<string, unknown>>,
): NodeError | undefined {
  let owner = ownerOf(instance);
  while (owner !== ROOT && nodeAt(graph, owner).kind !== 'workflow') owner = draft.read(owner)?.parent ?? ROOT;
  const all = { ...draft.read(owner)?.variables, ...variables };
  const error = tooLargeVariables(all, variables);
  if (error === undefined) draft.write(owner).variables = all;
  return error;
}
