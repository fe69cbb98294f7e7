import type { Duration } from '@bufbuild/protobuf/wkt';
import type { RetryPolicy } from '@harrier/shared/gen/module';
import {
  WorkflowNode_Join as Join,
  WorkflowNode_Map_Mode as Mode,
  WorkflowNode_Policy as Policy,
  type Workflow,
  type WorkflowGraph,
  type WorkflowNode,
} from '@harrier/shared/gen/workflow';

export type NodeKind = NonNullable<WorkflowNode['kind']['case']>;

/** What the engine needs to know of an edge. */
export interface GraphEdge {
  /** Position among the edges that leave its node, in the order in which they are tried. */
  index: number;
  from: string;
  to: string;
  /** Expression; empty: it needs none. */
  when: string;
  isDefault: boolean;
}

/** What the engine needs to know of a node. */
export interface GraphNode {
  id: string;
  kind: NodeKind;
  definition: WorkflowNode;
  join: 'all' | 'any' | 'all_done';
  /** Edges into it. */
  incoming: number;
  /** Nodes before it, in the order of the edges. */
  predecessors: readonly string[];
  /** In the order in which they are tried. */
  outgoing: readonly GraphEdge[];
  /** Something must be evaluated when it has ended: conditions of edges, or variables that it sets. */
  decides: boolean;
  continueOnFailure: boolean;
  continueOnTimeout: boolean;
  retry: RetryPolicy | undefined;
  /** Of a try; of a sub-workflow the shorter one of the node's and the workflow's. */
  timeoutMs: number | undefined;
  /** Of a map with a graph, and of a sub-workflow. */
  body: Graph | undefined;
  /** Of a map: items at once. */
  concurrency: number;
  /** Of a map: one failed item stops the others. */
  failFast: boolean;
}

export interface Graph {
  nodes: ReadonlyMap<string, GraphNode>;
  /** Nodes without edges into them. */
  roots: readonly GraphNode[];
  /** Nodes without edges that leave them, as they are written. */
  leaves: readonly GraphNode[];
  /** The definition that holds the template of its output. */
  definition: Workflow | WorkflowGraph;
}

/** Finds the workflow of a `workflow` node; those of a run are fixed when it is accepted. */
export type FindWorkflow = (name: string, version: string) => Workflow;

/** Puts a definition that was found to be right into the form in which it is run. */
export function compileGraph(definition: Workflow | WorkflowGraph, findWorkflow: FindWorkflow): Graph {
  const edges = definition.edges.map((edge, position) => ({ edge, position }));
  const outgoing = new Map<string, GraphEdge[]>();
  const predecessors = new Map<string, string[]>();
  for (const { edge } of edges) append(predecessors, edge.to, edge.from);
  for (const { edge } of edges.toSorted((a, b) => a.edge.priority - b.edge.priority || a.position - b.position)) {
    const { from, to, when } = edge;
    const index = outgoing.get(from)?.length ?? 0;
    append(outgoing, from, { index, from, to, when, isDefault: edge.default });
  }
  const nodes = definition.nodes.map((node) => {
    return compileNode(node, outgoing.get(node.id) ?? [], predecessors.get(node.id) ?? [], findWorkflow);
  });
  return {
    nodes: new Map(nodes.map((node) => [node.id, node])),
    roots: nodes.filter(({ incoming }) => incoming === 0),
    leaves: nodes.filter((node) => node.outgoing.length === 0),
    definition,
  };
}

function compileNode(
  node: WorkflowNode,
  outgoing: GraphEdge[],
  predecessors: string[],
  findWorkflow: FindWorkflow,
): GraphNode {
  const kind = node.kind.case;
  if (kind === undefined) throw new Error(`node ${node.id} is of no kind`);
  const map = node.kind.case === 'map' ? node.kind.value : undefined;
  const continueOnFailure = node.onFailure === Policy.CONTINUE;
  const body = bodyOf(node, findWorkflow);
  const conditional = outgoing.some(({ when, isDefault }) => when !== '' || isDefault);
  return {
    id: node.id,
    kind,
    definition: node,
    join: node.join === Join.ANY ? 'any' : node.join === Join.ALL_DONE ? 'all_done' : 'all',
    incoming: predecessors.length,
    predecessors,
    outgoing,
    decides: conditional || Object.keys(node.setVariables).length > 0,
    continueOnFailure,
    continueOnTimeout:
      node.onTimeout === Policy.POLICY_UNSPECIFIED ? continueOnFailure : node.onTimeout === Policy.CONTINUE,
    retry: node.retry,
    timeoutMs: shortestMs(node.timeout, timeoutOf(body)),
    body,
    concurrency: map?.concurrency || Number.POSITIVE_INFINITY,
    failFast: map !== undefined && map.mode !== Mode.COLLECT,
  };
}

function bodyOf({ kind }: WorkflowNode, findWorkflow: FindWorkflow): Graph | undefined {
  if (kind.case === 'map' && kind.value.body.case === 'graph') return compileGraph(kind.value.body.value, findWorkflow);
  if (kind.case !== 'workflow') return undefined;
  return compileGraph(findWorkflow(kind.value.name, kind.value.version), findWorkflow);
}

/** Of a sub-workflow; the graph of a map has none. */
function timeoutOf(body: Graph | undefined): Duration | undefined {
  return body?.definition.$typeName === 'harrier.v1.Workflow' ? body.definition.timeout : undefined;
}

function shortestMs(...durations: (Duration | undefined)[]): number | undefined {
  const given = durations.filter((duration) => duration !== undefined);
  return given.length === 0
    ? undefined
    : Math.min(...given.map(({ seconds, nanos }) => Number(seconds) * 1000 + nanos / 1e6));
}

function append<Key, Value>(lists: Map<Key, Value[]>, key: Key, value: Value): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [value]);
  else list.push(value);
}

/** Edges by which a node is left when no condition of them is met, by index. */
export function edgesWithoutCondition({ kind, outgoing }: GraphNode): number[] {
  const taken = outgoing.filter(({ when, isDefault }) => isDefault || (when === '' && kind !== 'condition'));
  return taken.map(({ index }) => index);
}
