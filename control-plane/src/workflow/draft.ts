import { keptCharsOf } from './run-limits.ts';
import { type EndState, type Instance, isOver, newInstance, ownerOf, type Run } from './run-state.ts';

/** A line for people: what happened to a node, or to the run (path ''). */
export interface StepLog {
  level: 'DEBUG' | 'INFO' | 'WARNING' | 'ERROR';
  path: string;
  message: string;
}

/** Something that is over, and is not tried again by itself: a node, an item of a map, or the run (path ''). */
export interface EndedInstance {
  path: string;
  /** Of the node, or `item`; of the run `run`. */
  kind: string;
  state: EndState;
  /** From the start of its first try, since the run was last started. */
  seconds: number;
}

/** What one event changes. Nothing has changed before it is applied, which is once it is stored. */
export interface Step {
  changed: readonly Instance[];
  log: readonly StepLog[];
  ended: readonly EndedInstance[];
  nextTurn: number;
}

/** The run as it will be: what was written to is a copy, everything else is read through. */
export class Draft {
  readonly run: Run;
  readonly #changed = new Map<string, Instance>();
  /** Children that were begun here, by what they are within. */
  readonly #begun = new Map<string, string[]>();
  /** Those that were put into the queue here, in their order. */
  readonly #queued: string[] = [];
  /** Those that were made here. */
  #entered = 0;
  readonly #log: StepLog[] = [];
  readonly #ended: EndedInstance[] = [];
  #nextTurn: number;
  /** What is taken of the slots, the changes included. */
  #running: number;

  constructor(run: Run) {
    this.run = run;
    this.#nextTurn = run.nextTurn;
    this.#running = run.running.size;
  }

  read(path: string): Instance | undefined {
    return this.#changed.get(path) ?? this.run.instances.get(path);
  }

  /** @throws Error when there is no such instance */
  write(path: string): Instance {
    const changed = this.#changed.get(path);
    if (changed !== undefined) return changed;
    const known = this.run.instances.get(path);
    if (known === undefined) throw new Error(`the run has no ${path}`);
    const copy = { ...known };
    this.#changed.set(path, copy);
    return copy;
  }

  /** As `write`, and makes it where it is not there. */
  enter(path: string, parent: string, item?: number): Instance {
    if (this.read(path) !== undefined) return this.write(path);
    const made = newInstance(path, parent, item);
    this.#entered++;
    this.#changed.set(path, made);
    return made;
  }

  /** Instances that there are, those of the changes included. */
  get size(): number {
    return this.run.instances.size + this.#entered;
  }

  /** It has begun: what it is within is not over before it is. */
  begun(instance: Instance): void {
    const { path } = instance;
    const parent = ownerOf(instance);
    this.write(parent).active++;
    const siblings = this.#begun.get(parent);
    if (siblings === undefined) this.#begun.set(parent, [path]);
    else siblings.push(path);
  }

  /** Children of an instance that are not over, in no certain order. */
  *openChildren(parent: string): Iterable<Instance> {
    const known = this.run.open.get(parent) ?? [];
    for (const path of [...known, ...(this.#begun.get(parent) ?? [])]) {
      const child = this.read(path);
      if (child !== undefined && child.phase !== 'none') yield child;
    }
  }

  queue(instance: Instance): void {
    instance.turn = this.#nextTurn++;
    this.#queued.push(instance.path);
  }

  /** The first of those that wait for a slot, if there is a slot. */
  nextForSlot(): Instance | undefined {
    if (this.#running >= this.run.maxParallel) return undefined;
    for (const path of this.run.queue) {
      if (this.read(path)?.phase === 'slot') return this.write(path);
    }
    for (const path of this.#queued) {
      if (this.read(path)?.phase === 'slot') return this.write(path);
    }
    return undefined;
  }

  takeSlot(): void {
    this.#running++;
  }

  freeSlot(): void {
    this.#running--;
  }

  log(level: StepLog['level'], path: string, message: string): void {
    this.#log.push({ level, path, message });
  }

  ended(instance: EndedInstance): void {
    this.#ended.push(instance);
  }

  step(): Step {
    const changed = [...this.#changed.values()];
    return { changed, log: this.#log, ended: this.#ended, nextTurn: this.#nextTurn };
  }
}

/** Makes what a step says true of the run in memory. */
export function applyStep(run: Run, step: Step): void {
  run.nextTurn = step.nextTurn;
  const queued: Instance[] = [];
  for (const instance of step.changed) {
    const { path, parent, phase } = instance;
    run.keptChars += keptCharsOf(instance) - keptCharsOf(run.instances.get(path));
    run.instances.set(path, instance);
    if (phase === 'execution') run.running.add(path);
    else run.running.delete(path);
    if (phase === 'slot') queued.push(instance);
    else run.queue.delete(path);
    if (parent !== undefined) noteOpen(run, parent, instance);
  }
  // New ones come behind those that wait already: their turns are higher.
  for (const { path } of queued.toSorted((a, b) => a.turn - b.turn)) run.queue.add(path);
}

function noteOpen(run: Run, parent: string, instance: Instance): void {
  const siblings = run.open.get(parent);
  if (instance.phase !== 'none' && !isOver(instance)) {
    if (siblings === undefined) run.open.set(parent, new Set([instance.path]));
    else siblings.add(instance.path);
  } else if (siblings?.delete(instance.path) && siblings.size === 0) run.open.delete(parent);
}
