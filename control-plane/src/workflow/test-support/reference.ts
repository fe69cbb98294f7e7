import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Graph, GraphNode } from '../graph.ts';
import type { RunEvent } from '../run-event.ts';
import type { EndState, NodeState } from '../run-state.ts';

/** What a thing is about; `execution` also while it waits for its turn, which is not modelled. */
type Doing = 'nothing' | 'execution' | 'compute' | 'timer' | 'backoff' | 'signal' | 'children' | 'output' | 'decide';

/** A node, an item of a map, or the run. */
interface Thing {
  path: string;
  node: GraphNode | undefined;
  parent: Thing | undefined;
  isItem: boolean;
  state: NodeState;
  doing: Doing;
  tries: number;
  triesBefore: number;
  stopping: EndState | undefined;
  /** Why it is being stopped. */
  code: Code;
  dueMs: number | undefined;
  deadlineMs: number | undefined;
  /** Its join was met, or cannot be met any more, since the run was last started. */
  reached: boolean;
  /** Edges that are taken, by index; undefined: not decided yet. */
  told: ReadonlySet<number> | 'all' | undefined;
  /** As `told`, kept for the next start. */
  decided: ReadonlySet<number> | 'all';
  kept: boolean;
  undecided: boolean;
  children: Map<string, Thing>;
  /** Of a map; of a workflow 0 once its input is known. */
  items: number | undefined;
  begun: number;
}

/**
 * What a workflow is to do, without anything that makes it fast or durable: after each event every join is looked at anew,
 * from the states of all nodes before it, until nothing changes any more.
 */
export class Reference {
  readonly root: Thing;
  readonly #graph: Graph;
  readonly #timeoutMs: number | undefined;
  /** Whether an execution goes on, or still waits for its turn. */
  readonly #runs: (path: string) => boolean;
  #nowMs = 0;

  constructor(graph: Graph, timeoutMs: number | undefined, runs: (path: string) => boolean) {
    this.#graph = graph;
    this.#timeoutMs = timeoutMs;
    this.#runs = runs;
    this.root = newThing('', undefined, undefined, false);
  }

  take(event: RunEvent, nowMs: number): void {
    this.#nowMs = nowMs;
    this.#takeNow(event);
    while (this.#settleOnce(this.root));
  }

  /** States and tries by path, without those that were not reached. */
  states(): Record<string, string> {
    const states: Record<string, string> = {};
    const visit = (thing: Thing): void => {
      if (thing.state !== 'PENDING') states[thing.path] = `${open(thing.state)} ${thing.tries}`;
      for (const child of thing.children.values()) visit(child);
    };
    visit(this.root);
    return states;
  }

  #takeNow(event: RunEvent): void {
    switch (event.type) {
      case 'begin':
        this.root.tries = 1;
        this.#startClock(this.root, this.#timeoutMs);
        this.#open(this.root);
        return;
      case 'ended': {
        const thing = this.#find(event.path);
        const state = event.state === 'SUCCEEDED' ? event.state : (thing.stopping ?? event.state);
        this.#finish(thing, state, event.error?.code);
        return;
      }
      case 'not_computed': {
        const thing = this.#find(event.path);
        // What it is stopped for says whether there is another try.
        const code = thing.stopping === undefined ? event.error.code : Code.TIMEOUT;
        this.#finish(thing, thing.stopping ?? 'FAILED', code);
        return;
      }
      case 'computed':
        this.#computed(this.#find(event.path), event);
        return;
      case 'decided': {
        const thing = this.#find(event.path);
        thing.decided = new Set(event.taken);
        this.#tell(thing, thing.decided);
        return;
      }
      case 'signalled':
        this.#finish(this.#find(event.path), 'SUCCEEDED');
        return;
      case 'time':
        this.#timePassed(this.root);
        return;
      case 'cancel':
        if (this.root.doing !== 'nothing' && mayBeEnded(this.root) && !onlyStops(this.root))
          this.#stopWithin(this.root, 'CANCELLED', Code.CANCELLED);
        return;
      case 'retry':
        takeBackAll(this.root, true);
        this.root.tries++;
        this.#startClock(this.root, this.#timeoutMs);
        this.#open(this.root);
        return;
    }
  }

  #computed(thing: Thing, { items, dueMs }: Extract<RunEvent, { type: 'computed' }>): void {
    const kind = thing.node?.kind;
    if (thing.doing === 'output' || kind === 'transform') this.#finish(thing, 'SUCCEEDED');
    else if (kind === 'wait') {
      thing.doing = 'timer';
      thing.state = 'WAITING';
      thing.dueMs = dueMs;
    } else {
      thing.items = kind === 'map' ? items : 0;
      this.#open(thing);
    }
  }

  #startClock(thing: Thing, timeoutMs: number | undefined): void {
    thing.deadlineMs = timeoutMs === undefined ? undefined : this.#nowMs + timeoutMs;
  }

  #open(thing: Thing): void {
    thing.doing = 'children';
    thing.state = 'RUNNING';
    const graph = thing.node === undefined ? this.#graph : thing.node.body;
    if (isMap(thing) || graph === undefined) return;
    for (const node of graph.nodes.values()) {
      const path = thing.path === '' ? node.id : `${thing.path}.${node.id}`;
      if (!thing.children.has(node.id)) thing.children.set(node.id, newThing(path, node, thing, false));
    }
  }

  #launch(thing: Thing): void {
    thing.tries++;
    thing.dueMs = undefined;
    const kind = thing.node?.kind;
    const isGraph = thing.isItem && thing.node?.body !== undefined;
    this.#startClock(thing, isGraph ? undefined : thing.node?.timeoutMs);
    thing.state = 'RUNNING';
    if (isGraph) this.#open(thing);
    else if (thing.isItem || kind === 'run') thing.doing = 'execution';
    else if (kind === 'condition') this.#finish(thing, 'SUCCEEDED');
    else if (kind === 'signal') thing.doing = 'signal';
    else if ((kind === 'map' || kind === 'workflow') && thing.items !== undefined) this.#open(thing);
    else thing.doing = 'compute';
  }

  #finish(thing: Thing, state: EndState, code: Code = Code.HANDLER_ERROR): void {
    const { node, parent } = thing;
    const policy = isMap(thing) ? undefined : node?.retry;
    const tries = thing.tries - thing.triesBefore;
    const deciding = thing.doing === 'decide';
    thing.dueMs = undefined;
    thing.deadlineMs = undefined;
    thing.stopping = undefined;
    thing.doing = 'nothing';
    const mayTry = state !== 'SUCCEEDED' && state !== 'CANCELLED' && parent?.stopping === undefined;
    if (mayTry && policy !== undefined && tries < policy.maxAttempts && code !== Code.INPUT_INVALID) {
      thing.state = 'WAITING';
      thing.doing = 'backoff';
      const firstMs = Number(policy.initialBackoff?.seconds ?? 0n) * 1000 + (policy.initialBackoff?.nanos ?? 0) / 1e6;
      thing.dueMs = this.#nowMs + Math.round(firstMs * 2 ** (tries - 1));
      thing.items = undefined;
      takeBackAll(thing, false);
      return;
    }
    thing.state = state;
    if (node === undefined || parent === undefined) return;
    if (thing.isItem) {
      if (state !== 'SUCCEEDED' && parent.stopping === undefined && node.failFast)
        this.#stopWithin(parent, 'FAILED', code);
      return;
    }
    if (!proceeds(node, state)) {
      if (parent.stopping === undefined) this.#stopWithin(parent, 'FAILED', code);
      this.#tell(thing, new Set());
    } else if (!node.decides) this.#tell(thing, 'all');
    else if (deciding) {
      const unconditional = node.outgoing.filter(
        ({ when, isDefault }) => isDefault || (when === '' && node.kind !== 'condition'),
      );
      thing.decided = new Set(unconditional.map(({ index }) => index));
      this.#tell(thing, thing.decided);
    } else if (parent.stopping === undefined) thing.doing = 'decide';
    else {
      thing.undecided = true;
      this.#tell(thing, 'all');
    }
  }

  #tell(thing: Thing, taken: ReadonlySet<number> | 'all'): void {
    thing.doing = 'nothing';
    thing.told = taken;
  }

  /** @param spares what cleans up goes on */
  #stopWithin(thing: Thing, state: EndState, code: Code, spares = state === 'FAILED'): void {
    if (thing.doing === 'output') {
      this.#finish(thing, state, code);
      return;
    }
    thing.stopping = state;
    thing.code = code;
    for (const child of thing.children.values()) this.#stop(child, 'CANCELLED', spares);
  }

  #stop(thing: Thing, state: EndState, spares: boolean): void {
    const { doing, path, stopping } = thing;
    const code = state === 'TIMED_OUT' ? Code.TIMEOUT : Code.CANCELLED;
    if (doing === 'nothing') return;
    if (doing === 'decide') {
      thing.undecided = true;
      this.#tell(thing, 'all');
    } else if ((spares && stopping === 'FAILED') || onlyStops(thing)) return;
    else if (doing === 'children') this.#stopWithin(thing, state, code, spares);
    else if (stopping === 'CANCELLED') return;
    else if (doing === 'execution' && this.#runs(path)) thing.stopping = state;
    else this.#finish(thing, state, code);
  }

  #timePassed(thing: Thing): void {
    const isDue = (ms: number | undefined) => ms !== undefined && ms <= this.#nowMs;
    if (thing.doing === 'nothing') return;
    if (isDue(thing.deadlineMs) && mayBeEnded(thing) && thing.doing !== 'decide') {
      thing.deadlineMs = undefined;
      if (onlyStops(thing)) return;
      if (thing === this.root) this.#stopWithin(thing, 'TIMED_OUT', Code.TIMEOUT);
      else this.#stop(thing, 'TIMED_OUT', false);
    } else if (isDue(thing.dueMs)) {
      if (thing.doing === 'timer') this.#finish(thing, 'SUCCEEDED');
      else this.#launch(thing);
    } else for (const child of thing.children.values()) this.#timePassed(child);
  }

  /** @returns whether anything changed */
  #settleOnce(thing: Thing): boolean {
    let changed = false;
    for (const child of thing.children.values()) changed = this.#settleOnce(child) || changed;
    if (thing.doing !== 'children') return changed;
    const nodes = [...thing.children.values()];
    if (isMap(thing)) changed = this.#beginItems(thing) || changed;
    else for (const node of nodes) changed = this.#lookAtJoin(node, thing) || changed;
    if (changed || [...thing.children.values()].some(({ doing }) => doing !== 'nothing')) return changed;
    if (thing.stopping !== undefined) this.#finish(thing, thing.stopping, thing.code);
    else if (isMap(thing)) this.#finish(thing, 'SUCCEEDED');
    else thing.doing = 'output';
    return true;
  }

  #beginItems(map: Thing): boolean {
    const active = () => [...map.children.values()].filter(({ doing }) => doing !== 'nothing').length;
    const before = map.begun;
    while (map.stopping === undefined && map.begun < (map.items ?? 0) && active() < (map.node?.concurrency ?? 0)) {
      const path = `${map.path}[${map.begun++}]`;
      const item = map.children.get(path) ?? newThing(path, map.node, map, true);
      map.children.set(path, item);
      if (item.kept) item.kept = false;
      else this.#launch(item);
    }
    return map.begun > before;
  }

  #lookAtJoin(thing: Thing, scope: Thing): boolean {
    const { node } = thing;
    if (thing.reached || node === undefined) return false;
    const before = [...scope.children.values()].flatMap((from) => {
      const edges = from.node?.outgoing.filter(({ to }) => to === node.id) ?? [];
      return edges.map(({ index }) => ({ told: from.told !== undefined, taken: takes(from, index) }));
    });
    const all = before.every(({ told }) => told);
    const any = before.length === 0 || before.some(({ taken }) => taken);
    const { stopping } = scope;
    if (stopping !== undefined) {
      if (!all) return false;
      if (node.join === 'all_done' && stopping === 'FAILED') this.#reach(thing);
      else this.#passOver(thing, 'CANCELLED');
    } else if (node.join === 'any' && any) this.#reach(thing);
    else if (!all) return false;
    else if (any || node.join === 'all_done') this.#reach(thing);
    else this.#passOver(thing, 'SKIPPED');
    return true;
  }

  #reach(thing: Thing): void {
    thing.reached = true;
    if (!thing.kept) this.#launch(thing);
    else if (thing.undecided) {
      thing.undecided = false;
      thing.doing = 'decide';
    } else this.#tell(thing, thing.decided);
    thing.kept = false;
  }

  #passOver(thing: Thing, state: 'SKIPPED' | 'CANCELLED'): void {
    thing.reached = true;
    if (!thing.kept || state === 'SKIPPED') thing.state = state;
    thing.kept = false;
    this.#tell(thing, new Set());
  }

  #find(path: string): Thing {
    const visit = (thing: Thing): Thing | undefined => {
      if (thing.path === path) return thing;
      for (const child of thing.children.values()) {
        const found = visit(child);
        if (found !== undefined) return found;
      }
      return undefined;
    };
    const found = visit(this.root);
    if (found === undefined) throw new Error(`the model has no ${path}`);
    return found;
  }
}

/** Which of those that are not over wait for their turn is not modelled. */
export function open(state: NodeState): string {
  return state === 'RUNNING' || state === 'WAITING' ? 'OPEN' : state;
}

function newThing(path: string, node: GraphNode | undefined, parent: Thing | undefined, isItem: boolean): Thing {
  return {
    ...{ path, node, parent, isItem, state: 'PENDING', doing: 'nothing', tries: 0, triesBefore: 0 },
    ...{
      stopping: undefined,
      code: Code.CANCELLED,
      dueMs: undefined,
      deadlineMs: undefined,
      reached: false,
      told: undefined,
    },
    ...{ decided: 'all', kept: false, undecided: false, children: new Map(), items: undefined, begun: 0 },
  };
}

function isMap({ node, isItem }: Thing): boolean {
  return node?.kind === 'map' && !isItem;
}

/** Nothing stops it, or only a failure does, after which it cleans up. */
function mayBeEnded({ stopping }: Thing): boolean {
  return stopping === undefined || stopping === 'FAILED';
}

/** It has failed, nothing cleans up in it, and nothing will: only what is being stopped goes on. */
function onlyStops(thing: Thing): boolean {
  return thing.stopping === 'FAILED' && !cleansUp(thing);
}

function cleansUp({ stopping, children }: Thing): boolean {
  return [...children.values()].some((child) => {
    if (child.doing !== 'nothing') return child.stopping === undefined || cleansUp(child);
    return stopping === 'FAILED' && !child.isItem && child.node?.join === 'all_done' && child.state === 'PENDING';
  });
}

function takes({ told }: Thing, index: number): boolean {
  return told === 'all' || (told?.has(index) ?? false);
}

function proceeds(node: GraphNode, state: NodeState): boolean {
  if (state === 'TIMED_OUT') return node.continueOnTimeout;
  return state === 'SUCCEEDED' || (state === 'FAILED' && node.continueOnFailure);
}

/** @param keeps what is good stays, if what it was made of does */
function takeBackAll({ children }: Thing, keeps: boolean): void {
  const stays = new Map([...children.values()].map((child) => [child, keeps && madeOfTheSame(child, children)]));
  for (const [child, same] of stays) takeBack(child, same);
}

/** Looks at everything before a node, as it was. */
function madeOfTheSame({ node, isItem }: Thing, beside: ReadonlyMap<string, Thing>): boolean {
  if (isItem || node === undefined || node.predecessors.length === 0) return true;
  const isSame = (id: string): boolean => {
    const before = beside.get(id);
    if (before === undefined || !madeOfTheSame(before, beside)) return false;
    return before.state === 'SKIPPED' || (isGood(before) && !before.undecided);
  };
  return node.join === 'any' ? node.predecessors.some(isSame) : node.predecessors.every(isSame);
}

function isGood({ node, state, isItem }: Thing): boolean {
  return node !== undefined && (isItem ? state === 'SUCCEEDED' : proceeds(node, state));
}

/** @param keeps what is good stays */
function takeBack(thing: Thing, keeps: boolean): void {
  thing.reached = false;
  thing.told = undefined;
  thing.kept = keeps && isGood(thing);
  if (thing.kept) return;
  Object.assign(thing, { state: 'PENDING', doing: 'nothing', stopping: undefined, begun: 0, undecided: false });
  thing.decided = 'all';
  thing.triesBefore = thing.tries;
  if (!keeps) thing.items = undefined;
  takeBackAll(thing, keeps);
}
