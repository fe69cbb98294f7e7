import type { JsonValue } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Graph } from './graph.ts';
import type { RunEvent } from './run-event.ts';
import { continuesAfter, type EndState, type Instance, isOver, nodeOf, ROOT, type Run } from './run-state.ts';
import { open, Reference } from './test-support/reference.ts';
import { Simulation, type World } from './test-support/simulate.ts';

const KINDS = ['run', 'run', 'run', 'condition', 'transform', 'wait', 'signal', 'map', 'graph', 'workflow'] as const;
const SIMPLE_KINDS = ['run', 'run', 'condition', 'transform', 'map'] as const;
const MAX_NODES = 10;

/** The nodes and edges of a graph; edges lead from lower to higher numbers. */
const graphWith = (kinds: readonly string[], most: number) =>
  fc.array(
    fc.record({
      kind: fc.constantFrom(...kinds),
      join: fc.constantFrom('ALL', 'ALL', 'ANY', 'ALL_DONE'),
      onFailure: fc.constantFrom('FAIL', 'FAIL', 'CONTINUE'),
      onTimeout: fc.constantFrom('POLICY_UNSPECIFIED', 'FAIL', 'CONTINUE'),
      tries: fc.constantFrom(1, 1, 2, 3),
      timeout: fc.boolean(),
      collect: fc.boolean(),
      concurrency: fc.nat(3),
      before: fc.uniqueArray(fc.nat(most - 1), { maxLength: 3 }),
      edges: fc.array(fc.record({ when: fc.boolean(), priority: fc.integer({ min: -2, max: 2 }) }), {
        minLength: 3,
        maxLength: 3,
      }),
    }),
    { minLength: 1, maxLength: most },
  );

type Nodes = (typeof graphWith extends (...args: never[]) => fc.Arbitrary<infer Value> ? Value : never)[number][];

/** No two waits are equally long, so that they rarely end together. */
const duration = (ms: number) => `${(ms / 1000).toFixed(3)}s`;

function definitionOf(nodes: Nodes, prefix: string, within: JsonValue): { nodes: JsonValue[]; edges: JsonValue[] } {
  return {
    nodes: nodes.map((node, i) => ({
      id: `${prefix}${i}`,
      ...kindOf(node, within),
      join: node.join,
      on_failure: node.onFailure,
      on_timeout: node.onTimeout,
      ...(node.tries > 1 ? { retry: { max_attempts: node.tries, initial_backoff: duration(500 + 13 * i) } } : {}),
      ...(node.timeout || node.kind === 'signal' ? { timeout: duration(5_000 + 101 * i) } : {}),
    })),
    edges: nodes.flatMap((node, i) =>
      node.before
        .filter((from) => from < i)
        .map((from, k) => {
          const { when, priority } = node.edges[k] ?? { when: false, priority: 0 };
          return { from: `${prefix}${from}`, to: `${prefix}${i}`, when: when ? 'x' : '', priority };
        }),
    ),
  };
}

function kindOf({ kind, collect, concurrency }: Nodes[number], within: JsonValue): Record<string, JsonValue> {
  const run = { module: 'm' };
  const map = { items: 'x', mode: collect ? 'COLLECT' : 'FAIL_FAST', concurrency };
  switch (kind) {
    case 'wait':
      return { wait: { duration: '1s' } };
    case 'transform':
      return { transform: { expression: '1' } };
    case 'condition':
      return { condition: {} };
    case 'signal':
      return { signal: {} };
    case 'map':
      return { map: { ...map, run } };
    case 'graph':
      return { map: { ...map, graph: within } };
    case 'workflow':
      return { workflow: { name: 'inner' } };
    default:
      return { run };
  }
}

/** A workflow, and one that its nodes run; each with a timeout, or not. */
const workflows = fc
  .record({
    outer: graphWith(KINDS, MAX_NODES),
    inner: graphWith(SIMPLE_KINDS, 4),
    item: graphWith(SIMPLE_KINDS, 3),
    timeout: fc.boolean(),
    innerTimeout: fc.boolean(),
  })
  .map(({ outer, inner, item, timeout, innerTimeout }): [JsonValue, JsonValue] => [
    {
      ...{ name: 'w', version: '1.0.0', max_parallel: 2, ...(timeout ? { timeout: '2.003s' } : {}) },
      ...definitionOf(outer, 'n', definitionOf(item, 'a', {})),
    },
    {
      ...{ name: 'inner', version: '1.0.0', ...(innerTimeout ? { timeout: '1.607s' } : {}) },
      ...definitionOf(inner, 'b', {}),
    },
  ]);

/** Decides by a seed and a name alone, so that the same question has the same answer. */
function chance(seed: number, name: string, ratio: number): boolean {
  let hash = seed ^ 0x9e3779b9;
  for (const char of name) hash = Math.imul(hash ^ char.charCodeAt(0), 0x01000193);
  hash ^= hash >>> 15;
  return (Math.imul(hash, 0x2c1b3c6d) >>> 0) / 2 ** 32 < ratio;
}

function worldOf(seed: number, failing: number, choices: () => number): World {
  return {
    outcome: (path, tries): EndState => {
      if (!chance(seed, `${path}#${tries}`, failing)) return 'SUCCEEDED';
      return chance(seed, `${path}#${tries} slow`, 0.2) ? 'TIMED_OUT' : 'FAILED';
    },
    decide: (path, node) =>
      node.outgoing
        .filter(({ to, when }) => when === '' || chance(seed, `${path}>${to}`, 0.6))
        .map(({ index }) => index),
    items: (path) => (chance(seed, path, 0.2) ? 0 : 3),
    choose: (count) => choices() % Math.max(1, count),
  };
}

const choices = fc.infiniteStream(fc.nat(1_000));
const next = (stream: Iterator<number>) => () => stream.next().value as number;

/** Whether all that must be before a node begins is so. */
function checkOrder(run: Run, graph: Graph, before: ReadonlyMap<string, Instance>): void {
  for (const node of graph.nodes.values()) {
    const instance = run.instances.get(node.id);
    if (instance === undefined || instance.state === 'PENDING' || before.get(node.id)?.state === instance.state)
      continue;
    if (before.get(node.id)?.state !== 'PENDING' && before.has(node.id)) continue;
    const ended = node.predecessors
      .map((id) => run.instances.get(id))
      .filter((from) => from !== undefined && isOver(from));
    if (node.join === 'any' && instance.tries > 0 && node.incoming > 0) expect(ended.length).toBeGreaterThan(0);
    else expect(ended.length, `${node.id} was reached before all before it had ended`).toBe(node.incoming);
  }
}

/** Slots are given in the order in which they were asked for, and none is free while somebody waits. */
function checkSlots({ running, queue, instances, maxParallel }: Run): void {
  expect(running.size).toBeLessThanOrEqual(maxParallel);
  if (queue.size > 0) expect(running.size).toBe(maxParallel);
  const turns = [...queue].map((path) => instances.get(path)?.turn ?? 0);
  expect(turns).toEqual(turns.toSorted((a, b) => a - b));
}

/** The process dies after every step: all that it knew follows from what was stored. */
function crash(simulation: Simulation): void {
  const restored = simulation.restore();
  expect(restored.instances).toEqual(simulation.run.instances);
  expect(restored.open).toEqual(simulation.run.open);
  expect([...restored.queue]).toEqual([...simulation.run.queue]);
  expect(restored.running).toEqual(simulation.run.running);
  expect(restored.keptChars).toBe(simulation.run.keptChars);
  simulation.run = restored;
}

/** What is there to choose from at random beside what the world does by itself. */
function eventsOf(simulation: Simulation, choose: () => number): RunEvent[] {
  const { instances } = simulation.run;
  const events = simulation.possible().map((event): RunEvent => {
    const luck = choose();
    const fails = luck % 12 === 0;
    // An execution may be refused too.
    if ((event.type === 'computed' || event.type === 'decided' || event.type === 'ended') && fails) {
      const { path } = event;
      const error = { code: Code.INPUT_INVALID, message: 'no value' };
      return { type: 'not_computed', path, tries: instances.get(path)?.tries ?? 0, error };
    }
    // It had ended before it was told to stop.
    const tooLate = event.type === 'ended' && event.state === 'CANCELLED' && luck % 3 === 0;
    return tooLate ? { ...event, state: 'SUCCEEDED', output: { json: '{}' } } : event;
  });
  for (const { path, phase } of instances.values()) {
    if (phase === 'signal' && choose() % 4 === 0)
      events.push({ type: 'signalled', path, payload: { json: '{"a":1}' } });
  }
  return events;
}

/** Deadlines that pass together with something else: which of them is first is nobody's promise. */
function tie({ run, nowMs }: Simulation): boolean {
  const open = [...run.instances.values()].filter(({ phase }) => phase !== 'none');
  const deadlines = open.filter(
    ({ deadlineMs, stopping }) =>
      (deadlineMs ?? Infinity) <= nowMs && (stopping === undefined || stopping === 'FAILED'),
  );
  const timers = open.filter(({ dueMs }) => (dueMs ?? Infinity) <= nowMs);
  return deadlines.length > 0 && deadlines.length + timers.length > 1;
}

const modelled = (run: Run) =>
  Object.fromEntries(
    [...run.instances.values()]
      .filter(({ state }) => state !== 'PENDING')
      .map(({ path, state, tries }) => [path, `${open(state)} ${tries}`]),
  );

test('any run does what the model does, whatever happens, and whenever its process dies', () => {
  const ends: Record<string, number> = {};
  /** How runs that had failed were to end after a cancel. */
  const cancelled = new Set<string | undefined>();
  fc.assert(
    fc.property(
      workflows,
      fc.nat(),
      choices,
      fc.nat(60),
      fc.nat(2),
      ([definition, inner], seed, stream, cancelAt, restarts) => {
        const choose = next(stream[Symbol.iterator]());
        const simulation = new Simulation(definition, worldOf(seed, 0.3, choose), [inner]);
        const { graph, timeoutMs } = simulation.run;
        const reference = new Reference(graph, timeoutMs, (path) => simulation.run.running.has(path));
        const ended = new Set<string>();
        const send = (event: RunEvent): void => {
          reference.take(event, simulation.nowMs);
          simulation.send(event);
          expect(modelled(simulation.run), JSON.stringify(event)).toEqual(reference.states());
          for (const path of simulation.run.running) {
            const key = `${path}#${simulation.run.instances.get(path)?.tries}`;
            expect(ended, `${key} had ended, and was begun again`).not.toContain(key);
          }
          checkSlots(simulation.run);
        };
        let before = new Map<string, Instance>();
        let steps = 0;
        let left = restarts;
        send({ type: 'begin' });
        while (true) {
          checkOrder(simulation.run, graph, before);
          before = new Map(simulation.run.instances);
          crash(simulation);
          expect(steps++).toBeLessThan(3_000);
          const hasFailed = simulation.run.instances.get(ROOT)?.stopping === 'FAILED';
          if (steps === cancelAt || (hasFailed && choose() % 10 === 0)) {
            send({ type: 'cancel', error: { code: Code.CANCELLED, message: 'enough' } });
            if (hasFailed) cancelled.add(simulation.run.instances.get(ROOT)?.stopping ?? simulation.state());
          }
          const events = eventsOf(simulation, choose);
          const event = events[choose() % Math.max(1, events.length)];
          if (event === undefined) {
            const state = simulation.state() ?? '';
            ends[state] = (ends[state] ?? 0) + 1;
            if (left-- === 0 || state === 'SUCCEEDED') break;
            before = new Map();
            send({ type: 'retry' });
            // The order among kept nodes is that of their results.
            before = new Map(simulation.run.instances);
            continue;
          }
          if (event.type === 'time' && tie(simulation)) return;
          const wasRefused = event.type === 'not_computed' && simulation.run.running.has(event.path);
          if (event.type === 'ended' || wasRefused) ended.add(`${event.path}#${event.tries}`);
          send(event);
          // It comes twice.
          if (event.type === 'ended' || event.type === 'decided' || event.type === 'signalled')
            expect(simulation.send(event).changed).toEqual([]);
        }
        expect(simulation.state()).toMatch(/SUCCEEDED|FAILED|CANCELLED|TIMED_OUT/);
        for (const { path, state, phase, resets } of simulation.run.instances.values()) {
          // What was to be tried again when the run was cancelled.
          if (state === 'PENDING' && resets > 0) continue;
          expect([path, phase, state]).toEqual([
            path,
            'none',
            expect.stringMatching(/SUCCEEDED|FAILED|CANCELLED|TIMED_OUT|SKIPPED/),
          ]);
        }
        expect([simulation.run.open.size, simulation.run.queue.size, simulation.run.running.size]).toEqual([0, 0, 0]);
      },
    ),
    { numRuns: 400 },
  );
  // The random runs are of every kind.
  expect(Object.keys(ends).toSorted()).toEqual(['CANCELLED', 'FAILED', 'SUCCEEDED', 'TIMED_OUT']);
  // Some had something to clean up.
  expect([...cancelled].toSorted()).toEqual(['CANCELLED', 'FAILED']);
});

test('a graph without failures ends as its edges say, in whatever order things happen', () => {
  fc.assert(
    fc.property(workflows, fc.nat(), choices, ([definition, inner], seed, stream) => {
      const world = worldOf(seed, 0, next(stream[Symbol.iterator]()));
      const simulation = new Simulation(withoutSignals(definition), world, [inner]).finish();
      const { graph } = simulation.run;
      const expected: Record<string, string> = {};
      const taken = new Set<string>();
      for (const node of graph.nodes.values()) {
        const reached = node.incoming === 0 || node.join === 'all_done' || taken.has(node.id);
        expected[node.id] = reached ? 'SUCCEEDED' : 'SKIPPED';
        if (!reached) continue;
        const edges = node.decides ? (world.decide?.(node.id, node) ?? []) : node.outgoing.map(({ index }) => index);
        for (const index of edges) taken.add(node.outgoing[index]?.to ?? '');
      }
      expect(simulation.states()).toMatchObject({ '': 'SUCCEEDED', ...expected });
    }),
    { numRuns: 300 },
  );
});

test('a run that is started again succeeds when nothing fails any more; of what succeeded only what cleaned up runs twice', () => {
  let cleaned = 0;
  fc.assert(
    fc.property(workflows, fc.nat(), choices, ([definition, inner], seed, stream) => {
      const world = worldOf(seed, 0.4, next(stream[Symbol.iterator]()));
      const simulation = new Simulation(withoutSignals(definition), world, [inner]);
      /** How often it had been taken back then, by path: later it may have begun as everything else. */
      const cleaning = new Map<string, number>();
      simulation.send({ type: 'begin' });
      while (simulation.advanceOnce()) {
        for (const { path, resets } of cleaningUp(simulation.run)) cleaning.set(path, resets);
      }
      if (simulation.state() === 'SUCCEEDED') return;
      const late = [...cleaning.keys()].filter(
        (path) => simulation.run.instances.get(path)?.resets === cleaning.get(path),
      );
      const isLate = (path: string) => late.some((of) => `${path}.`.startsWith(`${of}.`) || path.startsWith(`${of}[`));
      const { instances, graph } = simulation.run;
      /** Within a map that has collected failures, or what failed and was tolerated: that stays as a whole. */
      const stays = (path: string): boolean => {
        const owner = instances.get(instances.get(path)?.parent ?? ROOT);
        const node = owner === undefined ? undefined : nodeOf(graph, owner.path);
        if (owner === undefined || node === undefined) return false;
        const isTolerated = owner.item === undefined && continuesAfter(node, owner.state);
        return (!isLate(owner.path) && (owner.state === 'SUCCEEDED' || isTolerated)) || stays(owner.path);
      };
      const ran = new Set(simulation.begun.filter((path) => isLate(path) && !stays(path)));
      const good = [...simulation.run.instances.values()].filter(
        ({ state, tries }) => state === 'SUCCEEDED' && tries > 0,
      );
      world.outcome = () => 'SUCCEEDED';
      simulation.begun.length = 0;
      simulation.send({ type: 'retry' });
      simulation.run = simulation.restore();
      simulation.finish();
      expect(simulation.state()).toBe('SUCCEEDED');
      for (const { path } of good) {
        if (!isLate(path)) expect(simulation.begun).not.toContain(path);
        if (ran.has(path)) {
          cleaned++;
          expect(simulation.begun).toContain(path);
        }
      }
    }),
    { numRuns: 300 },
  );
  expect(cleaned).toBeGreaterThan(0);
});

/** Nodes that were begun when what they are within had failed already. */
function cleaningUp({ instances, graph }: Run): Instance[] {
  return [...instances.values()].filter(({ path, parent, phase, stopping }) => {
    const isOpen = path !== ROOT && phase !== 'none' && stopping === undefined;
    const isFailing = instances.get(parent ?? ROOT)?.stopping === 'FAILED';
    return isOpen && isFailing && nodeOf(graph, path)?.join === 'all_done';
  });
}

function withoutSignals(definition: JsonValue): JsonValue {
  const text = JSON.stringify(definition).replaceAll('"signal":{}', '"transform":{"expression":"1"}');
  // Nor anything that ends by time.
  return JSON.parse(text.replaceAll(/,?"timeout":"[^"]*"/g, '')) as JsonValue;
}
