import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { triesAgain } from './another-try.ts';
import { cleansUpWithin } from './clean-up.ts';
import { dueWithin, isDue, startClock } from './clock.ts';
import { Draft, type Step } from './draft.ts';
import { logEnd, tellEnd } from './ends.ts';
import { edgesWithoutCondition, type Graph, type GraphEdge, type GraphNode } from './graph.ts';
import { joined } from './join.ts';
import { itemsFailed, itemsToEnter } from './map-items.ts';
import type { Now, RunEvent } from './run-event.ts';
import { MAX_ERROR_CHARS, tooManyInstances, tooMuchKept } from './run-limits.ts';
import {
  childPath,
  continuesAfter,
  type EndState,
  graphWithin,
  type Instance,
  isFinal,
  itemCount,
  itemPath,
  type NodeError,
  nodeAt,
  nodeOf,
  ownerOf,
  ROOT,
  type Run,
  type Stored,
} from './run-state.ts';
import { setVariables } from './set-variables.ts';
import { cut } from './shown-value.ts';
import { takeBackWithin } from './start-again.ts';

const TIMED_OUT: NodeError = { code: Code.TIMEOUT, message: 'it took longer than its timeout' };
const CANCELLED: NodeError = { code: Code.CANCELLED, message: 'the run was stopped' };

/**
 * What an event does to a run. Pure: the run is not changed, and the same run, event and time have the same step. An event
 * that has come too late, or twice, changes nothing.
 */
export function advance(run: Run, event: RunEvent, now: Now): Step {
  const advancing = new Advancing(run, now);
  advancing.take(withShortError(event));
  advancing.settle();
  return advancing.draft.step();
}

/** One event on its way through the graph. Whatever follows from something is put into a list, not called: chains are long. */
class Advancing {
  readonly draft: Draft;
  readonly #graph: Graph;
  readonly #now: Now;
  /** Edges that were decided, and have not been told to where they lead. */
  readonly #arrivals: { parent: string; node: GraphNode; taken: boolean }[] = [];
  /** Instances one of whose children is over. */
  readonly #emptied: string[] = [];

  constructor(run: Run, now: Now) {
    this.draft = new Draft(run);
    this.#graph = run.graph;
    this.#now = now;
  }

  take(event: RunEvent): void {
    const { draft } = this;
    switch (event.type) {
      case 'begin':
        this.#begin();
        return;
      case 'ended':
        this.#ended(event);
        return;
      case 'computed': {
        const found = this.#waitingFor(event.path, event.tries, 'compute', 'output');
        if (found === undefined) return;
        const error = tooMuchKept(draft.run, event.value);
        if (error === undefined) this.#computed(found, event);
        else this.#finish(found, 'FAILED', { error });
        return;
      }
      case 'not_computed': {
        const found = this.#waitingFor(event.path, event.tries, 'compute', 'output', 'execution', 'decide');
        if (found === undefined) return;
        if (found.phase === 'execution') draft.freeSlot();
        // One that is not being stopped may have an error nevertheless: it has failed, and its edges go on from that.
        const error = found.stopping === undefined ? event.error : (found.error ?? event.error);
        this.#finish(found, found.stopping ?? 'FAILED', { error });
        return;
      }
      case 'decided': {
        const found = draft.read(event.path);
        if (found?.phase !== 'decide') return;
        const instance = draft.write(event.path);
        const error =
          event.variables === undefined ? undefined : setVariables(draft, this.#graph, instance, event.variables);
        if (error !== undefined) {
          this.#finish(instance, 'FAILED', { error });
          return;
        }
        instance.decided = event.taken;
        if (event.why !== '') draft.log('INFO', event.path, event.why);
        this.#resolve(instance, new Set(event.taken));
        return;
      }
      case 'signalled': {
        if (draft.read(event.path)?.phase !== 'signal') {
          // Whoever said it was told that it is delivered: a step that ended the wait was not stored yet.
          draft.log('WARNING', event.path, 'a signal came too late: nothing waits for it any more');
          return;
        }
        draft.log('INFO', event.path, 'was signalled');
        const error = tooMuchKept(draft.run, event.payload);
        if (error === undefined) this.#finish(draft.write(event.path), 'SUCCEEDED', { output: event.payload });
        else this.#finish(draft.write(event.path), 'FAILED', { error });
        return;
      }
      case 'time':
        for (const { path, what } of dueWithin(draft, ROOT, this.#now.ms)) {
          if (what === 'deadline') this.#timeIsUp(draft.write(path));
          else this.#timerEnds(draft.write(path));
        }
        return;
      case 'cancel': {
        const root = draft.read(ROOT);
        if (root === undefined || root.phase === 'none' || isBeingEnded(root)) return;
        // One that cannot go on ends whatever it does.
        if (event.state === undefined && this.#onlyStops(root)) return;
        draft.log('WARNING', ROOT, event.error.message);
        this.#stopWithin(draft.write(ROOT), event.state ?? 'CANCELLED', event.error, false);
        return;
      }
      case 'retry':
        this.#startAgain();
        return;
    }
  }

  /** Follows everything to its end, and gives free slots away. */
  settle(): void {
    const { draft } = this;
    while (true) {
      const arrival = this.#arrivals.shift();
      if (arrival !== undefined) {
        this.#arrive(arrival.parent, arrival.node, arrival.taken);
        continue;
      }
      const emptied = this.#emptied.pop();
      if (emptied !== undefined) {
        this.#lookWithin(emptied);
        continue;
      }
      const next = draft.nextForSlot();
      if (next === undefined) return;
      draft.takeSlot();
      next.phase = 'execution';
      next.state = 'RUNNING';
    }
  }

  #begin(): void {
    const { draft } = this;
    if (draft.read(ROOT)?.state !== 'PENDING') return;
    const root = draft.write(ROOT);
    draft.log('INFO', ROOT, 'started');
    root.tries = 1;
    startClock(root, draft.run.timeoutMs, this.#now.ms);
    this.#openGraph(root, this.#graph);
  }

  #openGraph(owner: Instance, graph: Graph): void {
    owner.state = 'RUNNING';
    owner.phase = 'children';
    for (const node of graph.roots) {
      this.#reach(this.draft.enter(childPath(owner.path, node.id), owner.path), node);
    }
    this.#emptied.push(owner.path);
  }

  /** An edge into a node is decided. */
  #arrive(parent: string, node: GraphNode, taken: boolean): void {
    const instance = this.draft.enter(childPath(parent, node.id), parent);
    instance.arrived++;
    if (taken) instance.taken++;
    const parentStops = this.draft.read(parent)?.stopping;
    switch (joined(instance, node, { taken, parentStops })) {
      case 'begins':
        this.#reach(instance, node);
        return;
      case 'skipped':
        this.#passOver(instance, node, 'SKIPPED');
        return;
      case 'cancelled':
        this.#passOver(instance, node, 'CANCELLED');
        return;
      case 'waits':
    }
  }

  #reach(instance: Instance, node: GraphNode): void {
    if (instance.kept) {
      instance.kept = false;
      if (instance.undecided) {
        instance.undecided = false;
        instance.phase = 'decide';
        this.draft.begun(instance);
        return;
      }
      this.#tellEdges(instance, node, decidedOf(instance));
      return;
    }
    this.draft.begun(instance);
    this.#launch(instance, node);
  }

  #passOver(instance: Instance, node: GraphNode, state: 'SKIPPED' | 'CANCELLED'): void {
    if (instance.kept && state === 'CANCELLED') {
      // Its result is still good for the next start. Nothing begins now, whatever its edges say.
      instance.kept = false;
      this.#tellEdges(instance, node, decidedOf(instance));
      return;
    }
    instance.kept = false;
    instance.state = state;
    instance.endMs = this.#now.ms;
    this.draft.log('DEBUG', instance.path, state === 'SKIPPED' ? 'skipped' : 'not started: the run was stopped');
    this.#tellEdges(instance, node, new Set());
  }

  /** Begins a try. */
  #launch(instance: Instance, node: GraphNode): void {
    const { draft } = this;
    instance.tries++;
    instance.dueMs = undefined;
    const isItem = instance.item !== undefined;
    startClock(instance, isItem && node.body !== undefined ? undefined : node.timeoutMs, this.#now.ms);
    draft.log('INFO', instance.path, instance.tries === 1 ? 'started' : `try ${instance.tries} started`);
    if (isItem && node.body !== undefined) {
      this.#openGraph(instance, node.body);
      return;
    }
    const kind = isItem ? 'run' : node.kind;
    switch (kind) {
      case 'run':
        instance.state = 'WAITING';
        instance.phase = 'slot';
        draft.queue(instance);
        return;
      case 'condition':
        this.#finish(instance, 'SUCCEEDED', {});
        return;
      case 'signal':
        instance.state = 'WAITING';
        instance.phase = 'signal';
        return;
      case 'map':
        // A list that was computed once stays, whatever the variables are by now.
        if (instance.items !== undefined) {
          this.#openItems(instance, node);
          return;
        }
        break;
      case 'workflow':
        if (instance.input !== undefined && node.body !== undefined) {
          this.#openGraph(instance, node.body);
          return;
        }
        break;
      case 'wait':
      case 'transform':
        break;
    }
    instance.state = 'RUNNING';
    instance.phase = 'compute';
  }

  #computed(found: Instance, event: Extract<RunEvent, { type: 'computed' }>): void {
    const instance = this.draft.write(found.path);
    const node = nodeOf(this.#graph, instance.path);
    if (instance.phase === 'output') {
      this.#finish(instance, 'SUCCEEDED', { output: event.value });
      return;
    }
    switch (node?.kind) {
      case 'wait':
        instance.state = 'WAITING';
        instance.phase = 'timer';
        instance.dueMs = event.dueMs ?? this.#now.ms;
        if (isDue(instance.dueMs, this.#now.ms)) this.#timerEnds(instance);
        return;
      case 'map':
        instance.input = event.value;
        instance.items = event.items ?? 0;
        this.#openItems(instance, node);
        return;
      case 'workflow':
        instance.input = event.value;
        if (node.body !== undefined) this.#openGraph(instance, node.body);
        return;
      default:
        this.#finish(instance, 'SUCCEEDED', { output: event.value });
        return;
    }
  }

  #openItems(map: Instance, node: GraphNode): void {
    const error = tooManyInstances(this.draft.size, itemsToEnter(this.draft, map, node, itemCount(map)));
    if (error !== undefined) {
      this.#finish(map, 'FAILED', { error });
      return;
    }
    map.state = 'RUNNING';
    map.phase = 'children';
    this.#launchItems(map, node);
    this.#emptied.push(map.path);
  }

  #launchItems(map: Instance, node: GraphNode): void {
    while (map.begun < itemCount(map) && map.active < node.concurrency && map.stopping === undefined) {
      // Other maps may have grown since this one began.
      const error = tooManyInstances(this.draft.size, itemsToEnter(this.draft, map, node, map.begun + 1));
      if (error !== undefined) {
        this.#stopWithin(map, 'FAILED', error);
        return;
      }
      const item = this.draft.enter(itemPath(map.path, map.begun), map.path, map.begun);
      map.begun++;
      if (item.kept) {
        item.kept = false;
        continue;
      }
      this.draft.begun(item);
      this.#launch(item, node);
    }
  }

  #ended(event: Extract<RunEvent, { type: 'ended' }>): void {
    const found = this.#waitingFor(event.path, event.tries, 'execution');
    if (found === undefined) return;
    const instance = this.draft.write(event.path);
    instance.executionId = event.executionId;
    this.draft.freeSlot();
    const stopped = event.state === 'SUCCEEDED' ? undefined : instance.stopping;
    const error = stopped === undefined ? event.error : instance.error;
    this.#finish(instance, stopped ?? event.state, { output: event.output, error });
  }

  /** The code of an instance has ended, or there is none. */
  #finish(
    instance: Instance,
    state: EndState,
    { output, error }: { output?: Stored | undefined; error?: NodeError | undefined },
  ): void {
    const { path } = instance;
    const node = nodeOf(this.#graph, path);
    const parent = instance.parent === undefined ? undefined : this.draft.read(instance.parent);
    if (state !== 'SUCCEEDED' && node !== undefined && !this.#parentStops(instance)) {
      if (triesAgain(this.draft, this.#graph, instance, { node, state, error, now: this.#now })) return;
    }
    const deciding = instance.phase === 'decide';
    // Its end was told when it began to decide.
    if (!deciding) tellEnd(this.draft, instance, { node, state, nowMs: this.#now.ms });
    Object.assign(instance, { state, error, output, endMs: this.#now.ms, phase: 'none' });
    Object.assign(instance, { dueMs: undefined, deadlineMs: undefined, stopping: undefined });
    logEnd(this.draft, instance);
    if (node === undefined || parent === undefined) return;
    if (instance.item !== undefined) {
      this.#itemFinished(instance, node);
      return;
    }
    const proceeds = state === 'SUCCEEDED' || continuesAfter(node, state);
    if (proceeds && deciding) {
      // To ask again would have the same answer.
      instance.decided = edgesWithoutCondition(node);
      this.draft.log('WARNING', path, 'its edges could not be decided: those without a condition are taken');
      this.#resolve(instance, new Set(instance.decided));
      return;
    }
    if (proceeds && node.decides) {
      if (parent.stopping === undefined) {
        instance.phase = 'decide';
        return;
      }
      instance.undecided = true;
    }
    if (!proceeds && parent.stopping === undefined) {
      const cause = { ...(error ?? CANCELLED), message: `${path}: ${(error ?? CANCELLED).message}` };
      this.#stopWithin(this.draft.write(parent.path), 'FAILED', cause);
    }
    this.#resolve(instance, proceeds ? undefined : new Set());
  }

  #parentStops({ parent }: Instance): boolean {
    return parent !== undefined && this.draft.read(parent)?.stopping !== undefined;
  }

  #itemFinished(item: Instance, node: GraphNode): void {
    const map = this.draft.write(ownerOf(item));
    if (item.state !== 'SUCCEEDED' && map.stopping === undefined) {
      map.failed++;
      if (node.failFast) {
        const cause = item.error ?? CANCELLED;
        this.#stopWithin(map, 'FAILED', { ...cause, message: `${item.path}: ${cause.message}` });
      }
    }
    this.#over(item);
  }

  /** It is over, and its edges are taken or not. @param taken undefined: all */
  #resolve(instance: Instance, taken: ReadonlySet<number> | undefined): void {
    instance.phase = 'none';
    this.#tellEdges(instance, nodeAt(this.#graph, instance.path), taken);
    this.#over(instance);
  }

  #tellEdges(instance: Instance, node: GraphNode, taken: ReadonlySet<number> | undefined): void {
    const parent = ownerOf(instance);
    const graph = graphWithin(this.#graph, parent);
    for (const edge of node.outgoing) {
      const to = graph?.nodes.get(edge.to);
      if (to === undefined) continue;
      this.#arrivals.push({ parent, node: to, taken: isTaken(edge, taken) });
    }
  }

  #over(instance: Instance): void {
    const parent = ownerOf(instance);
    this.draft.write(parent).active--;
    this.#emptied.push(parent);
  }

  /** Some of what is within an instance is over, perhaps all. */
  #lookWithin(path: string): void {
    const { draft } = this;
    const found = draft.read(path);
    if (found?.phase !== 'children') return;
    const node = nodeOf(this.#graph, path);
    const isMap = node?.kind === 'map' && found.item === undefined;
    if (isMap && found.begun < itemCount(found) && found.stopping === undefined)
      this.#launchItems(draft.write(path), node);
    const instance = draft.write(path);
    if (instance.active > 0) return;
    if (instance.stopping !== undefined) {
      this.#finish(instance, instance.stopping, { error: instance.error });
      return;
    }
    if (isMap) {
      const failed = itemsFailed(instance);
      if (failed !== undefined) draft.log('WARNING', path, failed);
      this.#finish(instance, 'SUCCEEDED', {});
      return;
    }
    instance.phase = 'output';
  }

  /**
   * Everything within is stopped; what waits is cancelled at once, what runs when it has ended.
   * @param spares what cleans up after a failure of its own goes on: nobody wants an end, something beside it has failed
   */
  #stopWithin(instance: Instance, state: EndState, error: NodeError, spares = state === 'FAILED'): void {
    const { stopping, error: before } = instance;
    instance.stopping = state;
    instance.error =
      stopping === 'FAILED' && before !== undefined ? { ...error, message: afterFailure(error, before) } : error;
    if (instance.phase === 'output') {
      this.#finish(instance, state, { error });
      return;
    }
    for (const child of this.draft.openChildren(instance.path))
      this.#stop(this.draft.write(child.path), { state: 'CANCELLED', error: CANCELLED, spares });
    this.#emptied.push(instance.path);
  }

  #stop(instance: Instance, { state, error, spares }: { state: EndState; error: NodeError; spares: boolean }): void {
    const { phase, stopping } = instance;
    if (phase === 'decide') {
      instance.undecided = true;
      this.#resolve(instance, undefined);
      return;
    }
    if (phase === 'children') {
      if (stopping === 'FAILED' && (spares || this.#onlyStops(instance))) return;
      // Also one that is being stopped already: what was spared within it is stopped now.
      this.#stopWithin(instance, state, error, spares);
      return;
    }
    if (stopping === 'CANCELLED') return;
    if (phase !== 'execution') {
      this.#finish(instance, state, { error });
      return;
    }
    instance.stopping = state;
    instance.error = error;
  }

  /** It has failed, and nothing cleans up: to end it otherwise would only hide the failure. */
  #onlyStops(instance: Instance): boolean {
    return instance.stopping === 'FAILED' && !cleansUpWithin(this.draft, this.#graph, instance);
  }

  #timeIsUp(instance: Instance): void {
    instance.deadlineMs = undefined;
    if (instance.path !== ROOT) {
      this.#stop(instance, { state: 'TIMED_OUT', error: TIMED_OUT, spares: false });
      return;
    }
    if (this.#onlyStops(instance)) return;
    this.draft.log('ERROR', ROOT, TIMED_OUT.message);
    this.#stopWithin(instance, 'TIMED_OUT', TIMED_OUT);
  }

  #timerEnds(instance: Instance): void {
    if (instance.phase === 'timer') {
      this.#finish(instance, 'SUCCEEDED', {});
      return;
    }
    this.#launch(instance, nodeAt(this.#graph, instance.path));
  }

  #startAgain(): void {
    const { draft } = this;
    const found = draft.read(ROOT);
    if (found === undefined || !isFinal(found.state) || found.state === 'SUCCEEDED') return;
    const root = draft.write(ROOT);
    draft.log('INFO', ROOT, 'started again from the nodes that failed');
    takeBackWithin(draft, this.#graph, ROOT, true);
    root.tries++;
    root.output = undefined;
    root.active = 0;
    root.startMs = undefined;
    startClock(root, draft.run.timeoutMs, this.#now.ms);
    this.#openGraph(root, this.#graph);
  }

  /** The instance, if it still waits for this. */
  #waitingFor(path: string, tries: number, ...phases: Instance['phase'][]): Instance | undefined {
    const found = this.draft.read(path);
    if (found === undefined || found.tries !== tries || !phases.includes(found.phase)) return undefined;
    return this.draft.write(path);
  }
}

/** Whether somebody wants its end, or its time is up; one that cleans up after a failure can still be ended. */
function isBeingEnded({ stopping }: Instance): boolean {
  return stopping !== undefined && stopping !== 'FAILED';
}

/** Why it ends, and what it was about then. */
function afterFailure({ message }: NodeError, failure: NodeError): string {
  return `${message}, while it cleaned up after a failure: ${failure.message}`;
}

/** The one way of an error from outside into a run. */
function withShortError(event: RunEvent): RunEvent {
  if (!('error' in event) || event.error === undefined) return event;
  return { ...event, error: { ...event.error, message: cut(event.error.message, MAX_ERROR_CHARS) } };
}

/** The edges that one takes which was decided before; undefined: all. */
function decidedOf({ decided }: Instance): ReadonlySet<number> | undefined {
  return decided === undefined ? undefined : new Set(decided);
}

function isTaken({ index }: GraphEdge, taken: ReadonlySet<number> | undefined): boolean {
  return taken === undefined || taken.has(index);
}
