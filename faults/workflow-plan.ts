import type { ExecutionPlan, Kind } from './execution-plan.ts';
import type { Random } from './random.ts';

/** What a node of a planned workflow does; `map` runs its body for each of its jobs. */
export type NodeKind = 'run' | 'map' | 'condition' | 'wait' | 'signal';

export interface NodePlan {
  id: string;
  kind: NodeKind;
  /** What it executes: one job for `run`, one for each item of `map`, else none. */
  jobs: ExecutionPlan[];
  /** Whether the run comes to it: what the condition decides follows from the plan. */
  isReached: boolean;
  /** Of a `map`: items at once. */
  concurrency: number;
  /** Of a `wait`. */
  waitMs: number;
}

export interface EdgePlan {
  from: string;
  to: string;
  /** Expression; undefined: it is taken. */
  when?: string;
  isDefault?: boolean;
}

/** A run of a workflow of its own, with everything that is decided about it beforehand. */
export interface WorkflowPlan {
  /** Its idempotency key, and the name of its workflow. Unique in a run of the machine. */
  key: string;
  /** How its caller waits: by following it, or by looking again later. */
  way: 'follow' | 'create';
  arrivalMs: number;
  nodes: NodePlan[];
  edges: EdgePlan[];
}

/** Most executions of one run. */
export const LARGEST_RUN = 6;
/** Nodes come one after the other, so that they are shorter than executions are that come alone. */
const LONGEST_NODE_MS = 5_000;
const LONGEST_WAIT_MS = 1_500;
/** Kinds whose code is told of its execution, so that it can tell the witness in which try it runs. */
const NODE_KINDS: Readonly<Partial<Record<Kind, number>>> = { inline: 10, venv: 4, docker: 4 };

type Shape = 'chain' | 'diamond' | 'map' | 'condition' | 'retry' | 'wait' | 'signal';
const SHAPES: Readonly<Record<Shape, number>> = {
  ...{ chain: 2, diamond: 2, map: 3, condition: 2, retry: 2, wait: 1, signal: 2 },
};

/** A node without its jobs; of a `map` as many items as it has. */
type Draft = Partial<Pick<NodePlan, 'kind' | 'concurrency' | 'waitMs'>> & { items?: number; isFlaky?: boolean };

/** A run of a shape that chance decides; undefined where nothing can be run that knows its execution. */
export function planWorkflow(
  random: Random,
  { key, kinds, lastArrivalMs }: { key: string; kinds: readonly Kind[]; lastArrivalMs: number },
): WorkflowPlan | undefined {
  const weights = Object.fromEntries(
    kinds.flatMap((kind) => (NODE_KINDS[kind] === undefined ? [] : [[kind, NODE_KINDS[kind]]])),
  ) as Record<Kind, number>;
  if (Object.keys(weights).length === 0) return undefined;
  const shape = random.weighted(SHAPES);
  const drafts = draftsOf(shape, random);
  const nodes = Object.entries(drafts).map(([id, { kind = 'run', items = 1, isFlaky = false, ...more }]): NodePlan => {
    const paths = kind === 'map' ? Array.from({ length: items }, (_, i) => `${id}[${i}]`) : kind === 'run' ? [id] : [];
    const environment = random.weighted(weights);
    const jobs = paths.map((path) => planJob(random, `${key}.${path}`, environment, isFlaky));
    return { id, kind, jobs, isReached: true, concurrency: 0, waitMs: 0, ...more };
  });
  const plan: WorkflowPlan = {
    key,
    way: random.chance(0.5) ? 'follow' : 'create',
    arrivalMs: random.integer(0, lastArrivalMs),
    nodes,
    edges: edgesOf(shape, nodes),
  };
  if (shape === 'condition') decide(plan, random);
  return plan;
}

/** Executions that a run needs at least: one for each job that it comes to. */
export function jobsOf({ nodes }: WorkflowPlan): ExecutionPlan[] {
  return nodes.flatMap(({ jobs, isReached }) => (isReached ? jobs : []));
}

/** The path of a job, as the run names it. */
export function pathOf({ key }: WorkflowPlan, job: ExecutionPlan): string {
  return job.key.slice(key.length + 1);
}

/** Nodes that have to be over when a node starts: those that execute something, and signals; through all others. */
export function nodesBefore({ nodes, edges }: WorkflowPlan, id: string): NodePlan[] {
  const found = new Map<string, NodePlan>();
  const look = (to: string) => {
    for (const { from } of edges.filter((edge) => edge.to === to)) {
      const node = nodes.find((one) => one.id === from);
      if (node?.isReached !== true) continue;
      if (node.jobs.length > 0 || node.kind === 'signal') found.set(from, node);
      look(from);
    }
  };
  look(id);
  return [...found.values()];
}

function draftsOf(shape: Shape, random: Random): Record<string, Draft> {
  switch (shape) {
    case 'chain':
      return Object.fromEntries(['a', 'b', 'c', 'd'].slice(0, random.integer(2, 4)).map((id) => [id, {}]));
    case 'diamond':
      return { a: {}, b: {}, c: {}, d: {} };
    case 'map':
      return { a: {}, m: { kind: 'map', items: random.integer(2, 4), concurrency: random.integer(0, 3) }, z: {} };
    case 'condition':
      return { a: {}, c: { kind: 'condition' }, yes: {}, no: {}, z: {} };
    case 'retry':
      return { a: { isFlaky: true }, b: {} };
    case 'wait':
      return { a: {}, w: { kind: 'wait', waitMs: random.integer(100, LONGEST_WAIT_MS) }, b: {} };
    case 'signal':
      return { a: {}, s: { kind: 'signal' }, b: {} };
  }
}

function edgesOf(shape: Shape, nodes: readonly NodePlan[]): EdgePlan[] {
  const edges = (...names: string[]) =>
    names.map((name) => ({ from: name.split(' ')[0] ?? '', to: name.split(' ')[1] ?? '' }));
  if (shape === 'diamond') return edges('a b', 'a c', 'b d', 'c d');
  if (shape === 'condition') return edges('a c', 'c yes', 'c no', 'yes z', 'no z');
  // One after the other.
  return nodes.slice(1).map(({ id }, i) => ({ from: nodes[i]?.id ?? '', to: id }));
}

/** Chance decides for one of the branches; the expression then says the same of what the node before it returns. */
function decide({ nodes, edges }: WorkflowPlan, random: Random): void {
  const lines = nodes.find(({ id }) => id === 'a')?.jobs[0]?.lines ?? 0;
  const isYes = random.chance(0.5);
  for (const node of nodes) if (node.id === (isYes ? 'no' : 'yes')) node.isReached = false;
  for (const edge of edges) {
    if (edge.to === 'yes') edge.when = `nodes.a.output.lines >= ${isYes ? lines : lines + 1}`;
    if (edge.to === 'no') edge.isDefault = true;
  }
}

function planJob(random: Random, key: string, kind: Kind, isFlaky: boolean): ExecutionPlan {
  const isChatty = random.chance(0.2);
  return {
    ...{ key, kind, way: 'node', arrivalMs: 0, failures: 0, retries: true, isFlaky },
    runMs: random.chance(0.7) ? random.integer(0, 300) : random.integer(1_000, LONGEST_NODE_MS),
    lines: isChatty ? random.integer(500, 2_000) : random.integer(0, 20),
    lineBytes: random.integer(20, 120),
    daemon: random.chance(0.1),
  };
}
