import type { Workflow, WorkflowGraph, WorkflowNode, WorkflowRunNode } from '@harrier/shared/gen/workflow';

/** The nodes of a graph by id, each behind those that it waits for. */
export type Outline = ReadonlyMap<string, OutlineNode>;

interface OutlineNode {
  kind: string;
  /** What it waits for. */
  after: readonly string[];
  /** Of a map with a graph: what is within each item. */
  within: Outline;
}

/** One node of a run as it is drawn. */
export interface Row {
  path: string;
  /** How many nodes it is within. */
  depth: number;
  kind: string;
  after: readonly string[];
  /** Undefined: it was not reached. */
  node: WorkflowRunNode | undefined;
}

const NOTHING: Outline = new Map();

/** The order is that of the definition, unless that has a node in front of one that it waits for. */
export function outlineOf({ nodes, edges }: Pick<Workflow | WorkflowGraph, 'nodes' | 'edges'>): Outline {
  const after = Map.groupBy(edges, ({ to }) => to);
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const outline = new Map<string, OutlineNode>();
  const seen = new Set<string>();
  // Not by calls of itself: a chain may be 5,000 nodes long.
  const open = nodes.toReversed();
  for (let node = open.at(-1); node !== undefined; node = open.at(-1)) {
    const { id } = node;
    const before = (after.get(id) ?? []).map(({ from }) => from);
    const missing = seen.has(id) ? [] : before.filter((other) => !outline.has(other));
    seen.add(id);
    if (missing.length > 0) {
      open.push(...missing.toReversed().flatMap((other) => byId.get(other) ?? []));
      continue;
    }
    open.pop();
    if (!outline.has(id)) outline.set(id, { kind: node.kind.case ?? '', after: before, within: withinOf(node) });
  }
  return outline;
}

function withinOf({ kind }: WorkflowNode): Outline {
  return kind.case === 'map' && kind.value.body.case === 'graph' ? outlineOf(kind.value.body.value) : NOTHING;
}

/** Where a path leads to, with what is within it by the last part of its path. */
interface Place {
  path: string;
  node: WorkflowRunNode | undefined;
  within: Map<string, Place>;
}

/** The nodes of a run in the order of its graph, those within others behind them. */
export class RunNodes {
  readonly #outline: Outline;
  readonly #root: Place = { path: '', node: undefined, within: new Map() };

  constructor(outline: Outline) {
    this.#outline = outline;
    for (const id of outline.keys()) this.#root.within.set(id, { path: id, node: undefined, within: new Map() });
  }

  set(node: WorkflowRunNode): void {
    let place = this.#root;
    // `a.m[3].b` is within `a.m[3]`, which is within `a.m`.
    for (const part of node.path.match(/\[\d+\]|[^.[]+/g) ?? []) {
      let next = place.within.get(part);
      if (next === undefined) {
        const separator = place.path === '' || part.startsWith('[') ? '' : '.';
        next = { path: `${place.path}${separator}${part}`, node: undefined, within: new Map() };
        place.within.set(part, next);
      }
      place = next;
    }
    place.node = node;
  }

  rows(): Row[] {
    const rows: Row[] = [];
    collect(this.#root, { outline: this.#outline, items: NOTHING, depth: 0 }, rows);
    return rows;
  }
}

/** @param outline of what is within the place. @param items of what is within its items, where it is a map */
function collect(
  place: Place,
  { outline, items, depth }: { outline: Outline; items: Outline; depth: number },
  rows: Row[],
): void {
  for (const [part, child] of inOrder(place.within)) {
    const isItem = part.startsWith('[');
    const known = isItem ? undefined : outline.get(part);
    const { path, node } = child;
    rows.push({ path, depth, kind: node?.kind ?? known?.kind ?? '', after: known?.after ?? [], node });
    const within = { outline: isItem ? items : NOTHING, items: known?.within ?? NOTHING, depth: depth + 1 };
    collect(child, within, rows);
  }
}

/** Items begin in their order, and are told of in any. */
function inOrder(within: ReadonlyMap<string, Place>): Iterable<[string, Place]> {
  const indexOf = (part: string) => Number(part.slice(1, -1));
  const [first] = within.keys();
  return first?.startsWith('[') ? [...within].toSorted(([a], [b]) => indexOf(a) - indexOf(b)) : within;
}
