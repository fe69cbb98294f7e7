/** A set of small whole numbers. */
export class BitSet {
  readonly #words: Uint32Array;

  constructor(size: number) {
    this.#words = new Uint32Array(Math.ceil(size / 32));
  }

  add(value: number): void {
    const word = value >>> 5;
    this.#words[word] = (this.#words[word] as number) | (1 << (value & 31));
  }

  addAll(other: BitSet): void {
    for (let i = 0; i < this.#words.length; i++)
      this.#words[i] = (this.#words[i] as number) | (other.#words[i] as number);
  }

  has(value: number): boolean {
    return ((this.#words[value >>> 5] as number) & (1 << (value & 31))) !== 0;
  }
}

/** Edges by the positions of their nodes. */
export type EdgeList = readonly { from: number; to: number }[];

/** For each node those before it; of a graph with a cycle, the nodes of one, in its order. */
export function ancestorsOf(nodes: number, edges: EdgeList): { before: BitSet[] } | { cycle: number[] } {
  const successors: number[][] = Array.from({ length: nodes }, () => []);
  const open = new Uint32Array(nodes);
  for (const { from, to } of edges) {
    successors[from]?.push(to);
    open[to] = (open[to] as number) + 1;
  }
  const before = Array.from({ length: nodes }, () => new BitSet(nodes));
  const ready: number[] = [];
  for (let node = 0; node < nodes; node++) if (open[node] === 0) ready.push(node);
  for (let at = 0; at < ready.length; at++) {
    const from = ready[at] as number;
    for (const to of successors[from] as number[]) {
      before[to]?.addAll(before[from] as BitSet);
      before[to]?.add(from);
      const left = (open[to] as number) - 1;
      open[to] = left;
      if (left === 0) ready.push(to);
    }
  }
  return ready.length === nodes ? { before } : { cycle: findCycle(successors, open) };
}

/** Every node that is still open has a predecessor that is: going back from any of them ends in a cycle. */
function findCycle(successors: readonly number[][], open: Uint32Array): number[] {
  const back = new Map<number, number>();
  successors.forEach((targets, from) => {
    if (open[from] === 0) return;
    // What comes after one that is open is open too.
    for (const to of targets) back.set(to, from);
  });
  const seen = new Map<number, number>();
  const path: number[] = [];
  let at = open.findIndex((left) => left !== 0);
  while (!seen.has(at)) {
    seen.set(at, path.length);
    path.push(at);
    at = back.get(at) as number;
  }
  const circle = path.slice(seen.get(at)).toReversed();
  const first = circle.indexOf(Math.min(...circle));
  return [...circle.slice(first), ...circle.slice(0, first)];
}
