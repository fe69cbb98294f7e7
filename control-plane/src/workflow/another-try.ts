import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Draft } from './draft.ts';
import type { Graph, GraphNode } from './graph.ts';
import { nodeBackoffMs } from './node-retry.ts';
import type { Now } from './run-event.ts';
import type { EndState, Instance, NodeError } from './run-state.ts';
import { forgetTry } from './start-again.ts';

/**
 * Lets a try that did not succeed be followed by another one after a wait, if its node says so.
 * @returns whether another try follows; if not, nothing has changed
 */
export function triesAgain(
  draft: Draft,
  graph: Graph,
  instance: Instance,
  { node, state, error, now }: { node: GraphNode; state: EndState; error: NodeError | undefined; now: Now },
): boolean {
  // The retry of a map is that of its items.
  const isMap = node.kind === 'map' && instance.item === undefined;
  if (isMap || state === 'CANCELLED' || node.retry === undefined) return false;
  const tries = instance.tries - instance.triesBefore;
  const waitMs = nodeBackoffMs(node.retry, error?.code ?? Code.INTERNAL, tries, now.random);
  if (waitMs === undefined) return false;
  const why = error?.message ?? state;
  draft.log('WARNING', instance.path, `try ${instance.tries} failed (${why}); next in ${waitMs} ms`);
  Object.assign(instance, { state: 'WAITING', phase: 'backoff', error, stopping: undefined });
  instance.dueMs = now.ms + waitMs;
  instance.deadlineMs = undefined;
  forgetTry(draft, graph, instance);
  return true;
}
