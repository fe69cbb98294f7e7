import type { GraphNode } from './graph.ts';
import { keptCharsOf } from './run-limits.ts';
import { childPath, type Instance, isOver, newInstance, newRun, nodeAt, ROOT, type Run } from './run-state.ts';

/** What of an instance is stored: the rest follows from the others. */
export type StoredInstance = Omit<Instance, 'arrived' | 'taken' | 'active'>;

/** Whether an instance has anything to be stored: one that was only reached by edges has not. */
export function isStored({ path, state, tries, resets }: Instance): boolean {
  return path === ROOT || state !== 'PENDING' || tries > 0 || resets > 0;
}

/** The run as it was when its last step was stored. */
export function restoreRun(
  given: Pick<Run, 'id' | 'graph' | 'maxParallel' | 'timeoutMs'> & { nextTurn: number },
  stored: Iterable<StoredInstance>,
): Run {
  const run = newRun(given);
  run.nextTurn = given.nextTurn;
  for (const given of stored) {
    const instance = { ...given, arrived: 0, taken: 0, active: 0 };
    run.instances.set(instance.path, instance);
    run.keptChars += keptCharsOf(instance);
  }
  const queued: Instance[] = [];
  for (const instance of [...run.instances.values()]) {
    const { parent, path, phase } = instance;
    if (phase === 'execution') run.running.add(path);
    if (phase === 'slot') queued.push(instance);
    if (parent === undefined) continue;
    if (phase !== 'none') noteOpen(run, parent, path);
    if (isOver(instance) && !instance.kept && instance.item === undefined) tellEdges(run, instance, parent);
  }
  for (const { path } of queued.toSorted((a, b) => a.turn - b.turn)) run.queue.add(path);
  return run;
}

function noteOpen(run: Run, parent: string, path: string): void {
  const siblings = run.open.get(parent);
  if (siblings === undefined) run.open.set(parent, new Set([path]));
  else siblings.add(path);
  const owner = run.instances.get(parent);
  if (owner !== undefined) owner.active++;
}

function tellEdges(run: Run, instance: Instance, parent: string): void {
  const node = nodeAt(run.graph, instance.path);
  for (const edge of node.outgoing) {
    const path = childPath(parent, edge.to);
    let to = run.instances.get(path);
    if (to === undefined) {
      to = newInstance(path, parent);
      run.instances.set(path, to);
    }
    to.arrived++;
    if (isTaken(node, instance, edge.index)) to.taken++;
  }
}

function isTaken(node: GraphNode, { state, decided }: Instance, index: number): boolean {
  if (decided !== undefined) return decided.includes(index);
  if (state === 'FAILED') return node.continueOnFailure;
  return state === 'TIMED_OUT' ? node.continueOnTimeout : state === 'SUCCEEDED';
}
