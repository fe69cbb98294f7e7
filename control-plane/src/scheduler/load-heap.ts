import type { Candidate } from '../agent-link/candidate.ts';

/** What orders agents. */
interface Load {
  /** Share of the slots that is in use. */
  load: number;
  /** Greater than that of those that came before it: ties go to the first. */
  sequence: number;
}

export interface HeapEntry extends Load {
  /** Where it stands in its heap; -1 while it is in none. */
  position: number;
}

export interface LoadEntry extends HeapEntry {
  agent: Candidate;
}

/** Entries that are looked at in their order before all of them are: where agents have room, one of the first does. */
const ORDERED_LOOKS = 32;

/** Whether `a` is to be taken rather than `b`. */
export function isLessLoaded(a: Load, b: Load): boolean {
  return a.load === b.load ? a.sequence < b.sequence : a.load < b.load;
}

/** A binary heap of agents by load, in which each knows its position, so that a change costs the logarithm of their number. */
export class LoadHeap<E extends HeapEntry> {
  readonly #entries: E[] = [];

  get size(): number {
    return this.#entries.length;
  }

  /** The least loaded of those that are not left out. */
  first(isLeftOut?: (entry: E) => boolean): E | undefined {
    const root = this.#entries[0];
    if (isLeftOut === undefined || root === undefined || !isLeftOut(root)) return root;
    const frontier = this.#children(root);
    for (let looks = 0; looks < ORDERED_LOOKS; looks++) {
      const next = takeLeast(frontier);
      if (next === undefined || !isLeftOut(next)) return next;
      frontier.push(...this.#children(next));
    }
    let best: E | undefined;
    for (const entry of this.#entries) {
      if ((best === undefined || isLessLoaded(entry, best)) && !isLeftOut(entry)) best = entry;
    }
    return best;
  }

  #children({ position }: E): E[] {
    return this.#entries.slice(position * 2 + 1, position * 2 + 3);
  }

  /** Adds an entry, or moves one whose load has changed to its place. */
  put(entry: E): void {
    if (entry.position < 0) entry.position = this.#entries.push(entry) - 1;
    this.#rise(entry);
    this.#sink(entry);
  }

  /** Safe to call for an entry that is not there. */
  remove(entry: E): void {
    const { position } = entry;
    if (position < 0) return;
    const last = this.#entries.pop();
    entry.position = -1;
    if (last === undefined || last === entry) return;
    this.#set(last, position);
    this.#rise(last);
    this.#sink(last);
  }

  #rise(entry: E): void {
    while (entry.position > 0) {
      const parent = this.#entries[(entry.position - 1) >> 1];
      if (parent === undefined || !isLessLoaded(entry, parent)) return;
      this.#swap(parent, entry);
    }
  }

  #sink(entry: E): void {
    while (true) {
      const left = this.#entries[entry.position * 2 + 1];
      const right = this.#entries[entry.position * 2 + 2];
      const child = left !== undefined && right !== undefined && isLessLoaded(right, left) ? right : left;
      if (child === undefined || !isLessLoaded(child, entry)) return;
      this.#swap(entry, child);
    }
  }

  #swap(parent: E, child: E): void {
    const { position } = parent;
    this.#set(parent, child.position);
    this.#set(child, position);
  }

  #set(entry: E, position: number): void {
    entry.position = position;
    this.#entries[position] = entry;
  }
}

function takeLeast<E extends HeapEntry>(entries: E[]): E | undefined {
  let least = 0;
  for (let at = 1; at < entries.length; at++) {
    if (isLessLoaded(entries[at] as E, entries[least] as E)) least = at;
  }
  return entries.splice(least, 1)[0];
}
