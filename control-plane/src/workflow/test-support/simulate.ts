import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { WorkflowSchema } from '@harrier/shared/gen/workflow';
import { advance } from '../advance.ts';
import { nextDueMs } from '../clock.ts';
import { applyStep, type Step } from '../draft.ts';
import { compileGraph, type Graph, type GraphNode } from '../graph.ts';
import { isStored, restoreRun, type StoredInstance } from '../restore.ts';
import type { RunEvent } from '../run-event.ts';
import { type EndState, type Instance, newRun, nodeOf, ROOT, type Run } from '../run-state.ts';

/** What the world around the engine does, decided by the test. */
export interface World {
  /** How a try of an execution ends. */
  outcome?: (path: string, tries: number) => EndState;
  /** The edges that are taken of those that have a condition. */
  decide?: (path: string, node: GraphNode) => readonly number[];
  /** Length of the list of a map. */
  items?: (path: string) => number;
  /** Which of the things that could happen next does, by index. */
  choose?: (count: number) => number;
}

/** Runs a workflow against a world, an event at a time. */
export class Simulation {
  run: Run;
  nowMs = 1_000;
  /** Paths in the order in which their executions were begun; one for each try. */
  readonly begun: string[] = [];
  readonly log: string[] = [];
  readonly #world: World;
  readonly #stored = new Map<string, StoredInstance>();
  #seen = new Set<string>();

  constructor(definition: JsonValue, world: World = {}, others: readonly JsonValue[] = []) {
    this.#world = world;
    const graph = graphOf(definition, others);
    const { maxParallel, timeout } = fromJson(WorkflowSchema, definition);
    this.run = newRun({
      id: 'run',
      graph,
      maxParallel: maxParallel || 100,
      timeoutMs: timeout === undefined ? undefined : Number(timeout.seconds) * 1000,
    });
  }

  send(event: RunEvent): Step {
    const step = advance(this.run, event, { ms: this.nowMs, random: 0 });
    applyStep(this.run, step);
    for (const instance of step.changed) if (isStored(instance)) this.#stored.set(instance.path, { ...instance });
    for (const { path, message } of step.log) this.log.push(`${path}: ${message}`);
    for (const path of this.run.running) {
      const key = `${path}#${this.run.instances.get(path)?.tries}`;
      if (!this.#seen.has(key)) this.begun.push(path);
      this.#seen.add(key);
    }
    return step;
  }

  /** The process died: everything in memory is gone. */
  restore(): Run {
    const { id, graph, maxParallel, timeoutMs, nextTurn } = this.run;
    const copies = [...this.#stored.values()].map((instance) => ({ ...instance }));
    return restoreRun({ id, graph, maxParallel, timeoutMs, nextTurn }, copies);
  }

  /** Events that could happen now; time passes only when nothing else can. */
  possible(): RunEvent[] {
    const events: RunEvent[] = [];
    let nextMs = Number.POSITIVE_INFINITY;
    for (const instance of this.run.instances.values()) {
      if (instance.phase === 'none') continue;
      const event = this.#eventOf(instance);
      if (event !== undefined) events.push(event);
      nextMs = Math.min(nextMs, nextDueMs(instance) ?? nextMs);
    }
    if (events.length === 0 && nextMs < Number.POSITIVE_INFINITY) {
      this.nowMs = Math.max(this.nowMs, nextMs);
      events.push({ type: 'time' });
    }
    return events;
  }

  /** Lets one thing happen. @returns whether anything could */
  advanceOnce(): boolean {
    const events = this.possible();
    const event = events[this.#world.choose?.(events.length) ?? 0];
    if (event === undefined) return false;
    this.send(event);
    return true;
  }

  /** From the beginning to the end. */
  finish(): this {
    if (this.state() === 'PENDING') this.send({ type: 'begin' });
    while (this.advanceOnce());
    return this;
  }

  state(path: string = ROOT): string | undefined {
    return this.run.instances.get(path)?.state;
  }

  states(): Record<string, string> {
    return Object.fromEntries([...this.run.instances.values()].map(({ path, state }) => [path, state]));
  }

  #eventOf({ path, phase, tries, stopping }: Instance): RunEvent | undefined {
    const node = nodeOf(this.run.graph, path);
    switch (phase) {
      case 'execution': {
        const planned = this.#world.outcome?.(path, tries) ?? 'SUCCEEDED';
        const state = stopping === undefined ? planned : 'CANCELLED';
        const error = {
          code: state === 'CANCELLED' ? Code.CANCELLED : Code.HANDLER_ERROR,
          message: `${path} ${state}`,
        };
        const output = { json: `{"of":"${path}"}` };
        return { type: 'ended', path, tries, state, ...(state === 'SUCCEEDED' ? { output } : { error }) };
      }
      case 'compute':
        return {
          type: 'computed',
          path,
          tries,
          value: { json: '{}' },
          items: this.#world.items?.(path) ?? 3,
          dueMs: this.nowMs + 10,
        };
      case 'output':
        return { type: 'computed', path, tries, value: { json: '{}' } };
      case 'decide': {
        const taken = node === undefined ? [] : (this.#world.decide?.(path, node) ?? allEdges(node));
        return { type: 'decided', path, taken, why: '' };
      }
      default:
        return undefined;
    }
  }
}

export function graphOf(definition: JsonValue, others: readonly JsonValue[] = []): Graph {
  const known = others.map((other) => fromJson(WorkflowSchema, other));
  return compileGraph(fromJson(WorkflowSchema, definition), (name) => {
    const found = known.find((workflow) => workflow.name === name);
    if (found === undefined) throw new Error(`no workflow ${name}`);
    return found;
  });
}

function allEdges(node: GraphNode): number[] {
  return node.outgoing.map(({ index }) => index);
}
