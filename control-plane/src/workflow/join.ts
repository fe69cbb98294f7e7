import type { GraphNode } from './graph.ts';
import type { EndState, Instance } from './run-state.ts';

/**
 * What becomes of a node when one more edge into it is decided.
 * - `waits`: for other edges, or it has begun or is over, and nothing that comes changes it
 * - `begins`: its join rule is met
 * - `skipped`: no edge that was taken leads to it
 * - `cancelled`: what it is within is being stopped
 * @param instance with this edge counted. @param taken whether this edge is. @param parentStops how what it is within is to end
 */
export function joined(
  instance: Instance,
  node: GraphNode,
  { taken, parentStops }: { taken: boolean; parentStops: EndState | undefined },
): 'waits' | 'begins' | 'skipped' | 'cancelled' {
  if (!instance.kept && instance.state !== 'PENDING') return 'waits';
  const complete = instance.arrived === node.incoming;
  if (parentStops !== undefined) {
    if (!complete) return 'waits';
    // What cleans up runs after a failure too, not when somebody wants an end.
    return node.join === 'all_done' && parentStops === 'FAILED' ? 'begins' : 'cancelled';
  }
  if (node.join === 'any' && taken) return 'begins';
  if (!complete) return 'waits';
  return node.join === 'all_done' || instance.taken > 0 ? 'begins' : 'skipped';
}
