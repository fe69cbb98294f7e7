import type { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { Graph, GraphNode } from './graph.ts';

/** Final but for `PENDING`, `RUNNING` and `WAITING`. */
export type NodeState =
  | 'PENDING'
  | 'WAITING'
  | 'RUNNING'
  | 'SUCCEEDED'
  | 'FAILED'
  | 'CANCELLED'
  | 'TIMED_OUT'
  | 'SKIPPED';

/** How something ends that was begun. */
export type EndState = 'SUCCEEDED' | 'FAILED' | 'CANCELLED' | 'TIMED_OUT';

/**
 * What an instance waits for; what has to be done for it follows from this alone, so that nothing has to be remembered beside it.
 * - `none`: nothing before it has been decided yet, or it is over
 * - `slot`: a place among the executions that may run at once
 * - `execution`: the end of an execution, which is created unless it is there
 * - `compute`: the value of its expressions: the list of a map, the input of a workflow, the time of a wait, a transform
 * - `timer`, `backoff`: `dueMs`
 * - `signal`: somebody's word
 * - `children`: the nodes or items within it
 * - `output`: the value of the template of its output
 * - `decide`: it has ended; which of its edges are taken, and what variables it sets
 */
export type Phase =
  | 'none'
  | 'slot'
  | 'execution'
  | 'compute'
  | 'timer'
  | 'backoff'
  | 'signal'
  | 'children'
  | 'output'
  | 'decide';

/** Why something did not succeed. */
export interface NodeError {
  code: Code;
  message: string;
  details?: Record<string, unknown> | undefined;
}

/** Where a value is. The engine only passes it on. */
export type Stored = { json: string } | { executionId: string };

/** A node in a run, an item of a map, or the run itself (path ''). */
export interface Instance {
  readonly path: string;
  /** Path of what it is within; undefined: it is the run. */
  readonly parent: string | undefined;
  /** Of an item: its index in the list. */
  readonly item: number | undefined;
  state: NodeState;
  phase: Phase;
  /** Edges into it that are decided, and those that are taken. Follow from the others, and are not stored. */
  arrived: number;
  taken: number;
  /** Tries begun, and those that had been when the run was last started again. */
  tries: number;
  triesBefore: number;
  /** How often it was taken back to its beginning. */
  resets: number;
  /** It succeeded before the run was started again: what it has led to is decided anew, as it was. */
  kept: boolean;
  startMs: number | undefined;
  endMs: number | undefined;
  dueMs: number | undefined;
  /** End of the try, or of the run. */
  deadlineMs: number | undefined;
  /** It is to end so as soon as what runs in it has ended. */
  stopping: EndState | undefined;
  error: NodeError | undefined;
  /** The edges that were taken, by index; undefined: not decided, or all of them. */
  decided: readonly number[] | undefined;
  /** It has ended while what it is within was being stopped: what it decides is decided when that is started again. */
  undecided: boolean;
  /** What it was given: the input of a workflow, the list of a map. */
  input: Stored | undefined;
  output: Stored | undefined;
  /** Of the last try that has ended. */
  executionId: string | undefined;
  /** Of a map: length of its list, items begun, items that failed. */
  items: number | undefined;
  begun: number;
  failed: number;
  /** Of the run and of a workflow within it: the variables that were set. */
  variables: Readonly<Record<string, unknown>> | undefined;
  /** Children that are not over. Follows from the others, and is not stored. */
  active: number;
  /** Order among those that wait for a slot. */
  turn: number;
}

/** A run in memory. Changed by `applyStep` only. */
export interface Run {
  readonly id: string;
  readonly graph: Graph;
  /** Executions at once. */
  readonly maxParallel: number;
  readonly timeoutMs: number | undefined;
  readonly instances: Map<string, Instance>;
  /** Instances that are not over, by what they are within. */
  readonly open: Map<string, Set<string>>;
  /** Those that wait for a slot, in their order. */
  readonly queue: Set<string>;
  /** Those that have one. */
  readonly running: Set<string>;
  /** Characters of the values that it keeps as JSON. Follows from the instances, and is not stored. */
  keptChars: number;
  nextTurn: number;
}

export const ROOT = '';

export function isFinal(state: NodeState): boolean {
  return state !== 'PENDING' && state !== 'WAITING' && state !== 'RUNNING';
}

/** Whether nothing is to be done for it any more. */
export function isOver({ state, phase }: Instance): boolean {
  return phase === 'none' && isFinal(state);
}

/** Whether what follows a node goes on although it has ended so. @param state of one that did not succeed */
export function continuesAfter(node: GraphNode, state: NodeState): boolean {
  return state === 'TIMED_OUT' ? node.continueOnTimeout : state === 'FAILED' && node.continueOnFailure;
}

export function childPath(parent: string, id: string): string {
  return parent === ROOT ? id : `${parent}.${id}`;
}

export function itemPath(map: string, index: number): string {
  return `${map}[${index}]`;
}

/** Path of what an instance is within; the run is within itself. */
export function ownerOf({ parent }: Instance): string {
  return parent ?? ROOT;
}

/** Length of the list of a map; 0 before it is known. */
export function itemCount({ items }: Instance): number {
  return items ?? 0;
}

/** What an instance is made from: for an item of a map the map's node, for the run itself undefined. */
export function nodeOf(graph: Graph, path: string): GraphNode | undefined {
  return path === ROOT ? undefined : nodeAt(graph, path);
}

/** As `nodeOf`, of anything but the run itself. @throws Error when there is no such node */
export function nodeAt(graph: Graph, path: string): GraphNode {
  let at: Graph | undefined = graph;
  let node: GraphNode | undefined;
  for (const part of path.split('.')) {
    const id = part.replace(/\[\d+\]$/, '');
    node = at?.nodes.get(id);
    at = node?.body;
  }
  if (node === undefined) throw new Error(`there is no node ${path}`);
  return node;
}

/** The graph within an instance that has one. */
export function graphWithin(graph: Graph, path: string): Graph | undefined {
  return path === ROOT ? graph : nodeOf(graph, path)?.body;
}

export function newInstance(path: string, parent: string | undefined, item?: number): Instance {
  return {
    path,
    parent,
    item,
    state: 'PENDING',
    phase: 'none',
    arrived: 0,
    taken: 0,
    tries: 0,
    triesBefore: 0,
    resets: 0,
    kept: false,
    startMs: undefined,
    endMs: undefined,
    dueMs: undefined,
    deadlineMs: undefined,
    stopping: undefined,
    error: undefined,
    decided: undefined,
    undecided: false,
    input: undefined,
    output: undefined,
    executionId: undefined,
    items: undefined,
    begun: 0,
    failed: 0,
    variables: undefined,
    active: 0,
    turn: 0,
  };
}

export function newRun(given: Pick<Run, 'id' | 'graph' | 'maxParallel' | 'timeoutMs'>): Run {
  return {
    ...given,
    instances: new Map([[ROOT, newInstance(ROOT, undefined)]]),
    open: new Map(),
    queue: new Set(),
    running: new Set(),
    keptChars: 0,
    nextTurn: 1,
  };
}
