import type { Draft } from './draft.ts';
import type { GraphNode } from './graph.ts';
import type { EndState, Instance } from './run-state.ts';

/** Tells that something is over, and how long it took. @param node undefined: it is the run */
export function tellEnd(
  draft: Draft,
  { path, item, startMs }: Instance,
  { node, state, nowMs }: { node: GraphNode | undefined; state: EndState; nowMs: number },
): void {
  const kind = node === undefined ? 'run' : item === undefined ? node.kind : 'item';
  draft.ended({ path, kind, state, seconds: (nowMs - (startMs ?? nowMs)) / 1000 });
}

/** Says in the log how something has ended. */
export function logEnd(draft: Draft, { path, state, error }: Instance): void {
  if (state === 'SUCCEEDED') {
    draft.log('INFO', path, 'succeeded');
    return;
  }
  const why = error === undefined ? '' : `: ${error.message}`;
  const level = state === 'CANCELLED' ? 'WARNING' : 'ERROR';
  draft.log(level, path, `${state.toLowerCase().replace('_', ' ')}${why}`);
}
