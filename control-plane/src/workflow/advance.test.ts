import type { JsonValue } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { describe, expect, test } from 'vitest';
import { Simulation, type World } from './test-support/simulate.ts';

const run = { module: 'm' };

function workflow(nodes: Record<string, JsonValue>, edges: string[], more: Record<string, JsonValue> = {}): JsonValue {
  return {
    name: 'w',
    version: '1.0.0',
    nodes: Object.entries(nodes).map(([id, node]) => ({ id, ...(node as object) })),
    edges: edges.map((edge) => {
      const [from = '', to = '', when = ''] = edge.split(/ -> | \? /);
      return when === 'default' ? { from, to, default: true } : { from, to, when };
    }),
    ...more,
  };
}

function simulate(definition: JsonValue, world?: World, others?: JsonValue[]) {
  return new Simulation(definition, world, others).finish();
}

/** Takes only the edge to the node of this name. */
function decideFor(target: string): NonNullable<World['decide']> {
  return (_, node) => node.outgoing.filter(({ to }) => to === target).map(({ index }) => index);
}

describe('a run', () => {
  test('starts a node when those before it have ended', () => {
    const line = simulate(workflow({ a: { run }, b: { run }, c: { run } }, ['a -> b', 'b -> c']));
    expect(line.begun).toEqual(['a', 'b', 'c']);
    expect(line.states()).toEqual({ '': 'SUCCEEDED', a: 'SUCCEEDED', b: 'SUCCEEDED', c: 'SUCCEEDED' });
  });

  test('has no barrier between levels', () => {
    const definition = workflow({ a: { run }, b: { run }, c: { run }, d: { run } }, ['a -> c', 'b -> d']);
    const simulation = new Simulation(definition);
    simulation.send({ type: 'begin' });
    simulation.send({ type: 'ended', path: 'a', tries: 1, state: 'SUCCEEDED' });
    expect(simulation.begun).toEqual(['a', 'b', 'c']);
  });

  test('runs no more at once than it may, in the order in which they came', () => {
    const definition = workflow({ a: { run }, b: { run }, c: { run } }, [], { max_parallel: 2 });
    const simulation = new Simulation(definition);
    simulation.send({ type: 'begin' });
    expect(simulation.states()).toMatchObject({ a: 'RUNNING', b: 'RUNNING', c: 'WAITING' });
    simulation.send({ type: 'ended', path: 'b', tries: 1, state: 'SUCCEEDED' });
    expect(simulation.state('c')).toBe('RUNNING');
  });

  test('changes nothing for what comes late or twice', () => {
    const simulation = new Simulation(workflow({ a: { run }, b: { run } }, ['a -> b']));
    simulation.send({ type: 'begin' });
    const ended = { type: 'ended', path: 'a', tries: 1, state: 'SUCCEEDED' } as const;
    simulation.send(ended);
    expect(simulation.send(ended).changed).toEqual([]);
    expect(simulation.send({ type: 'signalled', path: 'b', payload: { json: '{}' } }).changed).toEqual([]);
    expect(simulation.send({ type: 'begin' }).changed).toEqual([]);
    expect(simulation.send({ type: 'computed', path: 'a', tries: 1 }).changed).toEqual([]);
    const error = { code: Code.INTERNAL, message: 'no value' };
    expect(simulation.send({ type: 'not_computed', path: 'a', tries: 1, error }).changed).toEqual([]);
    expect(simulation.send({ type: 'decided', path: 'a', taken: [], why: '' }).changed).toEqual([]);
  });
});

describe('conditions', () => {
  const branches = { c: { condition: {} }, a: { run }, b: { run }, after: { run }, end: { run } };
  const edges = ['c -> a ? x', 'c -> b ? default', 'a -> after', 'after -> end', 'b -> end'];

  test('skip what no taken edge reaches, through joins', () => {
    const taken = simulate(workflow(branches, edges), { decide: decideFor('b') });
    expect(taken.states()).toMatchObject({
      '': 'SUCCEEDED',
      a: 'SKIPPED',
      after: 'SKIPPED',
      b: 'SUCCEEDED',
      end: 'SUCCEEDED',
    });
    const none = simulate(workflow(branches, edges), { decide: () => [] });
    expect(none.states()).toMatchObject({ '': 'SUCCEEDED', b: 'SKIPPED', end: 'SKIPPED' });
  });

  test('that cannot be decided fail their node', () => {
    const simulation = new Simulation(workflow(branches, edges));
    simulation.send({ type: 'begin' });
    const error = { code: Code.INTERNAL, message: 'no such field' };
    simulation.send({ type: 'not_computed', path: 'c', tries: 1, error });
    expect(simulation.finish().states()).toMatchObject({ '': 'FAILED', c: 'FAILED', a: 'CANCELLED' });
    expect(simulation.run.instances.get('')?.error?.message).toBe('c: no such field');
  });

  test('that cannot be decided after a failure that is tolerated say so, and lead on without a condition', () => {
    const nodes = { a: { run, on_failure: 'CONTINUE' }, b: { run }, c: { run }, d: { run } };
    const simulation = new Simulation(workflow(nodes, ['a -> b ? x', 'a -> c ? default', 'a -> d']));
    simulation.send({ type: 'begin' });
    const failed = { code: Code.TIMEOUT, message: 'too slow' };
    simulation.send({ type: 'ended', path: 'a', tries: 1, state: 'TIMED_OUT', error: failed });
    const error = { code: Code.INPUT_INVALID, message: 'no such field' };
    simulation.send({ type: 'not_computed', path: 'a', tries: 1, error });
    expect(simulation.run.instances.get('a')).toMatchObject({ state: 'FAILED', error, decided: [1, 2] });
    const expected = { '': 'SUCCEEDED', a: 'FAILED', b: 'SKIPPED', c: 'SUCCEEDED', d: 'SUCCEEDED' };
    expect(simulation.finish().states()).toEqual(expected);
  });
});

describe('joins', () => {
  test('any starts with the first, and once', () => {
    const definition = workflow({ a: { run }, b: { run }, c: { run, join: 'ANY' } }, ['a -> c', 'b -> c']);
    expect(simulate(definition).begun).toEqual(['a', 'b', 'c']);
    const simulation = new Simulation(definition);
    simulation.send({ type: 'begin' });
    simulation.send({ type: 'ended', path: 'b', tries: 1, state: 'SUCCEEDED' });
    expect(simulation.state('c')).toBe('RUNNING');
  });

  test('all_done runs after a failure that ends the run, nothing else does', () => {
    const nodes = { a: { run }, b: { run }, clean: { run, join: 'ALL_DONE' }, after: { run } };
    const failed = simulate(workflow(nodes, ['a -> b', 'b -> clean', 'clean -> after']), {
      outcome: (path) => (path === 'a' ? 'FAILED' : 'SUCCEEDED'),
    });
    expect(failed.states()).toEqual({
      '': 'FAILED',
      a: 'FAILED',
      b: 'CANCELLED',
      clean: 'SUCCEEDED',
      after: 'CANCELLED',
    });
  });
});

describe('failures', () => {
  const fails = (...paths: string[]): World => ({ outcome: (path) => (paths.includes(path) ? 'FAILED' : 'SUCCEEDED') });

  test('stop what runs, and what waits', () => {
    const nodes = {
      a: { run },
      b: { run },
      c: { run },
      d: { run },
      s: { signal: {} },
      t: { wait: { duration: '9s' } },
    };
    const simulation = simulate(workflow(nodes, ['a -> c', 'b -> d']), fails('a'));
    expect(simulation.states()).toMatchObject({
      '': 'FAILED',
      a: 'FAILED',
      b: 'CANCELLED',
      s: 'CANCELLED',
      t: 'CANCELLED',
    });
    expect(simulation.states()).toMatchObject({ c: 'CANCELLED', d: 'CANCELLED' });
  });

  test('without a reason are failures too', () => {
    const nodes = { a: { run, retry: { max_attempts: 2, initial_backoff: '1s' } }, m: { map: { items: 'x', run } } };
    const simulation = new Simulation(workflow(nodes, []));
    simulation.send({ type: 'begin' });
    simulation.send({ type: 'computed', path: 'm', tries: 1, items: 2 });
    simulation.send({ type: 'ended', path: 'a', tries: 1, state: 'FAILED' });
    expect(simulation.log).toContain('a: try 1 failed (FAILED); next in 1000 ms');
    simulation.send({ type: 'ended', path: 'm[0]', tries: 1, state: 'FAILED' });
    expect(simulation.finish().states()).toMatchObject({ '': 'FAILED', m: 'FAILED', 'm[1]': 'CANCELLED' });
  });

  test('that are tolerated lead on', () => {
    const nodes = { a: { run, on_failure: 'CONTINUE' }, b: { run } };
    expect(simulate(workflow(nodes, ['a -> b']), fails('a')).states()).toEqual({
      '': 'SUCCEEDED',
      a: 'FAILED',
      b: 'SUCCEEDED',
    });
  });

  test('are tried again as the node says, with a wait, and the tries are counted', () => {
    const nodes = { a: { run, retry: { max_attempts: 3, initial_backoff: '2s' } } };
    const simulation = simulate(workflow(nodes, []), { outcome: (_, tries) => (tries < 3 ? 'FAILED' : 'SUCCEEDED') });
    expect(simulation.run.instances.get('a')).toMatchObject({ state: 'SUCCEEDED', tries: 3 });
    expect(simulation.nowMs).toBe(1_000 + 2_000 + 4_000);
    expect(simulate(workflow(nodes, []), fails('a')).run.instances.get('a')).toMatchObject({
      state: 'FAILED',
      tries: 3,
    });
  });
});

describe('time', () => {
  test('ends a node whose execution takes too long once that has stopped', () => {
    const simulation = new Simulation(workflow({ a: { run, timeout: '5s' } }, []));
    simulation.send({ type: 'begin' });
    simulation.nowMs += 5_000;
    simulation.send({ type: 'time' });
    expect(simulation.run.instances.get('a')).toMatchObject({ state: 'RUNNING', stopping: 'TIMED_OUT' });
    expect(simulation.finish().states()).toEqual({ '': 'FAILED', a: 'TIMED_OUT' });
  });

  test('ends a run', () => {
    const definition = workflow({ a: { signal: {} }, b: { run, join: 'ALL_DONE' } }, ['a -> b'], { timeout: '60s' });
    expect(simulate(definition).states()).toEqual({ '': 'TIMED_OUT', a: 'CANCELLED', b: 'CANCELLED' });
  });

  test('ends a signal that nobody gives, and a wait', () => {
    const nodes = {
      s: { signal: {}, timeout: '5s', on_timeout: 'CONTINUE' },
      w: { wait: { duration: '1s' } },
      a: { run },
    };
    expect(simulate(workflow(nodes, ['s -> a', 'w -> a'])).states()).toMatchObject({
      '': 'SUCCEEDED',
      s: 'TIMED_OUT',
      a: 'SUCCEEDED',
    });
  });
});

describe('a signal', () => {
  test('that comes when its wait has just ended changes nothing, and is told in the log', () => {
    const simulation = new Simulation(workflow({ s: { signal: {}, timeout: '5s' } }, []));
    simulation.send({ type: 'begin' });
    simulation.nowMs += 5_000;
    simulation.send({ type: 'time' });
    const { changed, log } = simulation.send({ type: 'signalled', path: 's', payload: { json: '{}' } });
    expect([changed, log]).toEqual([
      [],
      [{ level: 'WARNING', path: 's', message: 'a signal came too late: nothing waits for it any more' }],
    ]);
    expect(simulation.state('s')).toBe('TIMED_OUT');
  });

  test('lets its node succeed with what it brings', () => {
    const simulation = new Simulation(workflow({ s: { signal: {} }, a: { run } }, ['s -> a']));
    simulation.send({ type: 'begin' });
    simulation.send({ type: 'signalled', path: 's', payload: { json: '{"approved":true}' } });
    expect(simulation.run.instances.get('s')).toMatchObject({
      state: 'SUCCEEDED',
      output: { json: '{"approved":true}' },
    });
    expect(simulation.state('a')).toBe('RUNNING');
  });
});

describe('a map', () => {
  const map = (more: object = {}): JsonValue =>
    workflow({ m: { map: { items: 'input.list', run, ...more } }, a: { run } }, ['m -> a']);

  test('runs its items, as many at once as it says', () => {
    const simulation = new Simulation(map({ concurrency: 2 }), { items: () => 5 });
    simulation.send({ type: 'begin' });
    simulation.advanceOnce();
    expect(simulation.begun).toEqual(['m[0]', 'm[1]']);
    expect(simulation.finish().begun).toEqual(['m[0]', 'm[1]', 'm[2]', 'm[3]', 'm[4]', 'a']);
  });

  test('of nothing succeeds', () => {
    expect(simulate(map(), { items: () => 0 }).states()).toEqual({ '': 'SUCCEEDED', m: 'SUCCEEDED', a: 'SUCCEEDED' });
  });

  const second: World = { items: () => 4, outcome: (path) => (path === 'm[1]' ? 'FAILED' : 'SUCCEEDED') };

  test('stops at the first item that fails', () => {
    const simulation = simulate(map({ concurrency: 2 }), second);
    expect(simulation.begun).toEqual(['m[0]', 'm[1]', 'm[2]']);
    expect(simulation.states()).toMatchObject({ '': 'FAILED', m: 'FAILED', 'm[1]': 'FAILED', a: 'CANCELLED' });
    expect(simulation.run.instances.get('m')?.error?.message).toContain('m[1]');
  });

  test('or collects', () => {
    const simulation = simulate(map({ mode: 'COLLECT' }), second);
    expect(simulation.states()).toMatchObject({ '': 'SUCCEEDED', m: 'SUCCEEDED', 'm[1]': 'FAILED', a: 'SUCCEEDED' });
    expect(simulation.run.instances.get('m')?.failed).toBe(1);
  });

  test('can hold a graph, and another map', () => {
    const graph = {
      nodes: [
        { id: 'x', run },
        { id: 'n', map: { items: 'item', run } },
      ],
      edges: [{ from: 'x', to: 'n' }],
    };
    const simulation = simulate(workflow({ m: { map: { items: 'input.list', graph } } }, []), { items: () => 2 });
    expect(simulation.state()).toBe('SUCCEEDED');
    expect(simulation.begun.toSorted()).toEqual([
      'm[0].n[0]',
      'm[0].n[1]',
      'm[0].x',
      'm[1].n[0]',
      'm[1].n[1]',
      'm[1].x',
    ]);
  });
});

describe('a workflow within a workflow', () => {
  const inner = { ...(workflow({ x: { run }, y: { run } }, ['x -> y']) as object), name: 'inner' };
  const outer = workflow({ w: { workflow: { name: 'inner' } }, a: { run } }, ['w -> a']);

  test('is a part of the run', () => {
    const simulation = simulate(outer, {}, [inner]);
    expect(simulation.begun).toEqual(['w.x', 'w.y', 'a']);
    expect(simulation.state()).toBe('SUCCEEDED');
  });

  test.each([
    ['its own', { timeout: '5s' }, {}, 5_000],
    ['that of its node', { timeout: '60s' }, { timeout: '3s' }, 3_000],
    ['its own, the shorter one', { timeout: '2s' }, { timeout: '3s' }, 2_000],
  ])('takes no longer than %s', (_, ofWorkflow, ofNode, ms) => {
    const waiting = { ...(workflow({ s: { signal: {} } }, [], ofWorkflow) as object), name: 'inner' };
    const simulation = simulate(workflow({ w: { workflow: { name: 'inner' }, ...ofNode } }, []), {}, [waiting]);
    expect(simulation.states()).toEqual({ '': 'FAILED', w: 'TIMED_OUT', 'w.s': 'CANCELLED' });
    expect(simulation.nowMs).toBe(1_000 + ms);
  });

  test('fails its node when it fails', () => {
    const simulation = simulate(outer, { outcome: () => 'FAILED' }, [inner]);
    expect(simulation.states()).toMatchObject({
      '': 'FAILED',
      w: 'FAILED',
      'w.x': 'FAILED',
      'w.y': 'CANCELLED',
      a: 'CANCELLED',
    });
  });
});

describe('cancelling', () => {
  test('ends what waits at once, and what runs when it has stopped', () => {
    const simulation = new Simulation(workflow({ a: { run }, s: { signal: {} }, b: { run } }, ['a -> b']));
    simulation.send({ type: 'begin' });
    simulation.send(cancel);
    expect(simulation.states()).toMatchObject({ '': 'RUNNING', a: 'RUNNING', s: 'CANCELLED' });
    expect(simulation.finish().states()).toMatchObject({ '': 'CANCELLED', a: 'CANCELLED', b: 'CANCELLED' });
    expect(simulation.send(cancel).changed).toEqual([]);
  });
});

/** The only try of node "a". */
const failed = {
  type: 'ended',
  path: 'a',
  tries: 1,
  state: 'FAILED',
  error: { code: Code.HANDLER_ERROR, message: 'boom' },
} as const;
const cancel = { type: 'cancel', error: { code: Code.CANCELLED, message: 'enough' } } as const;

describe('a run that cleans up after a failure', () => {
  const waiting = { signal: {}, join: 'ALL_DONE' };
  const nodes = { a: { run }, clean: waiting, last: { run, join: 'ALL_DONE' } };
  const edges = ['a -> clean', 'clean -> last'];
  const cleaning = (definition: JsonValue, others?: JsonValue[]) => {
    const simulation = new Simulation(definition, {}, others);
    simulation.send({ type: 'begin' });
    return simulation;
  };

  test('is ended by a cancel, with why it failed', () => {
    const simulation = cleaning(workflow(nodes, edges));
    simulation.send(failed);
    expect(simulation.state('clean')).toBe('WAITING');
    simulation.send(cancel);
    expect(simulation.states()).toEqual({ '': 'CANCELLED', a: 'FAILED', clean: 'CANCELLED', last: 'CANCELLED' });
    expect(simulation.run.instances.get('')?.error).toEqual({
      code: Code.CANCELLED,
      message: 'enough, while it cleaned up after a failure: a: boom',
    });
    expect(simulation.log).toContain(': enough');
  });

  test('is being cancelled until what runs has ended, and once', () => {
    const simulation = cleaning(workflow({ a: { run }, clean: { run, join: 'ALL_DONE' } }, ['a -> clean']));
    simulation.send(failed);
    simulation.send(cancel);
    expect(simulation.run.instances.get('')).toMatchObject({ state: 'RUNNING', stopping: 'CANCELLED' });
    expect(simulation.run.instances.get('clean')).toMatchObject({ state: 'RUNNING', stopping: 'CANCELLED' });
    expect(simulation.send(cancel).changed).toEqual([]);
    expect(simulation.finish().states()).toEqual({ '': 'CANCELLED', a: 'FAILED', clean: 'CANCELLED' });
  });

  test('is ended by its timeout', () => {
    const simulation = cleaning(workflow(nodes, edges, { timeout: '60s' }));
    simulation.send(failed);
    expect(simulation.finish().states()).toMatchObject({ '': 'TIMED_OUT', clean: 'CANCELLED', last: 'CANCELLED' });
    expect(simulation.nowMs).toBe(1_000 + 60_000);
  });

  const inner = { ...(workflow(nodes, edges) as object), name: 'inner' };
  const outer = { w: { workflow: { name: 'inner' } }, b: { run } };
  const within = (more: Record<string, JsonValue> = {}) => {
    const simulation = cleaning(workflow({ ...outer, w: { ...outer.w, ...more } }, []), [inner]);
    simulation.send({ type: 'computed', path: 'w', tries: 1, value: { json: '{}' } });
    simulation.send({ ...failed, path: 'w.a' });
    expect(simulation.states()).toMatchObject({ '': 'RUNNING', w: 'RUNNING', 'w.clean': 'WAITING' });
    return simulation;
  };

  test('goes on when something beside it fails too, and is ended with what it is within', () => {
    const simulation = within();
    simulation.send({ ...failed, path: 'b' });
    expect(simulation.states()).toMatchObject({ '': 'RUNNING', b: 'FAILED', 'w.clean': 'WAITING' });
    simulation.send(cancel);
    expect(simulation.states()).toMatchObject({ '': 'CANCELLED', w: 'CANCELLED', 'w.clean': 'CANCELLED' });
  });

  test('is ended by the timeout of its node', () => {
    const simulation = within({ timeout: '5s', on_timeout: 'CONTINUE' });
    expect(simulation.finish().states()).toMatchObject({ '': 'SUCCEEDED', w: 'TIMED_OUT', 'w.last': 'CANCELLED' });
  });

  test('deep within others is ended too', () => {
    const middle = { ...(workflow({ v: { workflow: { name: 'inner' } } }, []) as object), name: 'middle' };
    const simulation = cleaning(workflow({ w: { workflow: { name: 'middle' } }, b: { run } }, []), [inner, middle]);
    for (const path of ['w', 'w.v']) simulation.send({ type: 'computed', path, tries: 1, value: { json: '{}' } });
    simulation.send({ ...failed, path: 'w.v.a' });
    simulation.send({ ...failed, path: 'b' });
    expect(simulation.run.instances.get('w')).toMatchObject({ stopping: 'CANCELLED' });
    expect(simulation.state('w.v.clean')).toBe('WAITING');
    simulation.send(cancel);
    expect(simulation.states()).toMatchObject({ '': 'CANCELLED', w: 'CANCELLED', 'w.v': 'CANCELLED' });
  });
});

describe('starting again', () => {
  test('runs what failed, and what came behind it, and keeps the rest', () => {
    let broken = true;
    const outcome: World['outcome'] = (path) => (broken && (path === 'b' || path === 'm[1]') ? 'FAILED' : 'SUCCEEDED');
    const nodes = { a: { run }, m: { map: { items: 'x', run, mode: 'FAIL_FAST' } }, b: { run }, c: { run } };
    const definition = workflow(nodes, ['a -> m', 'm -> b', 'b -> c'], { max_parallel: 1 });
    const simulation = simulate(definition, { outcome });
    expect(simulation.states()).toMatchObject({
      '': 'FAILED',
      'm[0]': 'SUCCEEDED',
      'm[1]': 'FAILED',
      'm[2]': 'CANCELLED',
    });
    broken = false;
    simulation.begun.length = 0;
    simulation.send({ type: 'retry' });
    expect(simulation.finish().begun).toEqual(['m[1]', 'm[2]', 'b', 'c']);
    expect(simulation.state()).toBe('SUCCEEDED');
    expect(simulation.send({ type: 'retry' }).changed).toEqual([]);
  });
});

test('what is kept stays, also when the run fails again before it is reached', () => {
  const graph = { nodes: Array.from({ length: 10 }, (_, i) => ({ id: `x${i}`, condition: {} })) };
  const nodes = { a: { run }, k: { run }, m: { map: { items: 'x', graph } } };
  const simulation = new Simulation(workflow(nodes, ['a -> k']));
  simulation.send({ type: 'begin' });
  for (const path of ['a', 'k']) simulation.send({ type: 'ended', path, tries: 1, state: 'SUCCEEDED' });
  // Its list is kept, and is too long each time.
  simulation.send({ type: 'computed', path: 'm', tries: 1, items: 10_000, value: { json: '[]' } });
  for (let again = 0; again < 2; again++) {
    expect(simulation.states()).toMatchObject({ '': 'FAILED', a: 'SUCCEEDED', k: 'SUCCEEDED', m: 'FAILED' });
    simulation.send({ type: 'retry' });
  }
  expect(simulation.begun).toEqual(['a', 'k']);
});

describe('what cleaned up after a failure', () => {
  const failing = (...paths: string[]) => {
    const broken = new Set(paths);
    return { broken, outcome: (path: string) => (broken.has(path) ? ('FAILED' as const) : ('SUCCEEDED' as const)) };
  };
  const again = (simulation: Simulation) => {
    simulation.begun.length = 0;
    simulation.send({ type: 'retry' });
    simulation.run = simulation.restore();
    expect(simulation.finish().state()).toBe('SUCCEEDED');
    return simulation.begun;
  };

  test('runs again with what there is now, and so does what came behind it', () => {
    const nodes = { a: { run }, train: { run }, report: { run, join: 'ALL_DONE' }, mail: { run, join: 'ALL_DONE' } };
    const world = failing('train');
    const simulation = simulate(workflow(nodes, ['a -> train', 'train -> report', 'report -> mail']), world);
    expect(simulation.states()).toMatchObject({ '': 'FAILED', report: 'SUCCEEDED', mail: 'SUCCEEDED' });
    world.broken.clear();
    expect(again(simulation)).toEqual(['train', 'report', 'mail']);
  });

  test('runs from its beginning, if it failed itself', () => {
    const graph = { nodes: [{ id: 'x', run }] };
    const nodes = { train: { run }, report: { map: { items: 'x', graph }, join: 'ALL_DONE' } };
    const world = failing('train', 'report[1].x');
    const simulation = simulate(workflow(nodes, ['train -> report']), { ...world, items: () => 2 });
    expect(simulation.states()).toMatchObject({ report: 'FAILED', 'report[0]': 'SUCCEEDED', 'report[1]': 'FAILED' });
    world.broken.clear();
    expect(again(simulation)).toEqual(['train', 'report[0].x', 'report[1].x']);
  });

  test('within a workflow runs again too', () => {
    const nodes = { x: { run }, clean: { run, join: 'ALL_DONE' } };
    const inner = { ...(workflow(nodes, ['x -> clean']) as object), name: 'inner' };
    const world = failing('w.x');
    const simulation = simulate(workflow({ w: { workflow: { name: 'inner' } } }, []), world, [inner]);
    world.broken.clear();
    expect(again(simulation)).toEqual(['w.x', 'w.clean']);
  });

  test('is kept, if nothing failed before it: what was skipped is skipped again, what failed was tolerated', () => {
    const nodes = {
      ...{ c: { condition: {} }, no: { run }, bad: { run, on_failure: 'CONTINUE' } },
      ...{ both: { run, join: 'ALL_DONE' }, z: { run } },
    };
    const world = failing('bad', 'z');
    const edges = ['c -> no ? x', 'no -> both', 'bad -> both', 'both -> z'];
    const simulation = simulate(workflow(nodes, edges), { ...world, decide: () => [] });
    expect(simulation.states()).toMatchObject({ '': 'FAILED', no: 'SKIPPED', both: 'SUCCEEDED', z: 'FAILED' });
    world.broken.clear();
    expect(again(simulation)).toEqual(['z']);
    expect(simulation.state('no')).toBe('SKIPPED');
  });

  test('runs again, if what was before it had not decided what it sets', () => {
    const nodes = { a: { run, set_variables: { v: '1' } }, z: { run }, clean: { run, join: 'ALL_DONE' } };
    const simulation = new Simulation(workflow(nodes, ['a -> clean']));
    simulation.send({ type: 'begin' });
    simulation.send({ type: 'ended', path: 'z', tries: 1, state: 'FAILED' });
    simulation.send({ type: 'ended', path: 'a', tries: 1, state: 'SUCCEEDED' });
    expect(simulation.finish().states()).toMatchObject({ '': 'FAILED', a: 'SUCCEEDED', clean: 'SUCCEEDED' });
    expect(again(simulation)).toEqual(['z', 'clean']);
  });
});

test('a node that waited for any is kept, although another one before it failed', () => {
  const nodes = { a: { run }, b: { run }, c: { run, join: 'ANY' } };
  const simulation = new Simulation(workflow(nodes, ['a -> c', 'b -> c']));
  simulation.send({ type: 'begin' });
  for (const path of ['a', 'c']) simulation.send({ type: 'ended', path, tries: 1, state: 'SUCCEEDED' });
  simulation.send({ type: 'ended', path: 'b', tries: 1, state: 'FAILED' });
  expect(simulation.state()).toBe('FAILED');
  simulation.begun.length = 0;
  simulation.send({ type: 'retry' });
  expect(simulation.finish().states()).toEqual({ '': 'SUCCEEDED', a: 'SUCCEEDED', b: 'SUCCEEDED', c: 'SUCCEEDED' });
  expect(simulation.begun).toEqual(['b']);
});

test('an item that failed runs again, although a failure of its map is tolerated', () => {
  const nodes = {
    m: { map: { items: 'x', run, mode: 'COLLECT', concurrency: 1 }, on_failure: 'CONTINUE' },
    z: { run },
  };
  const simulation = new Simulation(workflow(nodes, []), { items: () => 2 });
  simulation.send({ type: 'begin' });
  simulation.send({ type: 'computed', path: 'm', tries: 1, items: 2, value: { json: '[1, 2]' } });
  for (const path of ['m[0]', 'z']) simulation.send({ type: 'ended', path, tries: 1, state: 'FAILED' });
  expect(simulation.finish().states()).toMatchObject({ '': 'FAILED', m: 'CANCELLED', 'm[0]': 'FAILED', z: 'FAILED' });
  simulation.begun.length = 0;
  simulation.send({ type: 'retry' });
  expect(simulation.finish().state()).toBe('SUCCEEDED');
  expect(simulation.begun.toSorted()).toEqual(['m[0]', 'm[1]', 'z']);
});

describe('what was not decided when the run was stopped', () => {
  const definition = workflow({ x: { run }, z: { run }, yes: { run }, no: { run } }, [
    'x -> yes ? a',
    'x -> no ? default',
  ]);
  const first = () => {
    const simulation = new Simulation(definition, { decide: decideFor('yes') });
    simulation.send({ type: 'begin' });
    return simulation;
  };
  const again = (simulation: Simulation) => {
    simulation.finish();
    expect(simulation.states()).toMatchObject({ '': 'FAILED', x: 'SUCCEEDED', yes: 'CANCELLED', no: 'CANCELLED' });
    simulation.begun.length = 0;
    simulation.send({ type: 'retry' });
    simulation.run = simulation.restore();
    expect(simulation.finish().states()).toMatchObject({ '': 'SUCCEEDED', yes: 'SUCCEEDED', no: 'SKIPPED' });
    expect(simulation.begun).toEqual(['z', 'yes']);
  };
  const failed = { type: 'ended', path: 'z', tries: 1, state: 'FAILED' } as const;
  const succeeded = { type: 'ended', path: 'x', tries: 1, state: 'SUCCEEDED' } as const;

  test('is decided when it is started again, if it ended before the failure', () => {
    const simulation = first();
    simulation.send(succeeded);
    simulation.send(failed);
    again(simulation);
  });

  test('and if it ended after it', () => {
    const simulation = first();
    simulation.send(failed);
    simulation.send(succeeded);
    again(simulation);
  });
});

test('a workflow within a workflow is tried again from its beginning, without what its first try has set', () => {
  const inner = {
    ...(workflow({ x: { run, set_variables: { v: '1' } }, y: { run } }, ['x -> y']) as object),
    name: 'inner',
  };
  const outer = workflow({ w: { workflow: { name: 'inner' }, retry: { max_attempts: 2, initial_backoff: '1s' } } }, []);
  let failures = 1;
  const simulation = simulate(
    outer,
    { outcome: (path) => (path === 'w.y' && failures-- > 0 ? 'FAILED' : 'SUCCEEDED') },
    [inner],
  );
  expect(simulation.begun).toEqual(['w.x', 'w.y', 'w.x', 'w.y']);
  expect(simulation.run.instances.get('w')).toMatchObject({ state: 'SUCCEEDED', tries: 2 });
});

describe('what has failed, and only waits for what is being stopped', () => {
  const begin = (definition: JsonValue, others?: JsonValue[]) => {
    const simulation = new Simulation(definition, {}, others);
    simulation.send({ type: 'begin' });
    return simulation;
  };
  const pass = (simulation: Simulation, ms: number) => {
    simulation.nowMs += ms;
    simulation.send({ type: 'time' });
  };

  test('is no map that is tolerated because it took too long', () => {
    const map = { items: 'input.list', run, mode: 'FAIL_FAST' };
    const nodes = { m: { map, timeout: '5s', on_timeout: 'CONTINUE' }, b: { run } };
    const simulation = begin(workflow(nodes, ['m -> b']));
    simulation.send({ type: 'computed', path: 'm', tries: 1, value: { json: '[]' }, items: 2 });
    simulation.send({ ...failed, path: 'm[0]' });
    pass(simulation, 5_000);
    expect(simulation.run.instances.get('m')).toMatchObject({ state: 'RUNNING', stopping: 'FAILED' });
    expect(simulation.possible()).toMatchObject([{ type: 'ended', path: 'm[1]' }]);
    expect(simulation.finish().states()).toMatchObject({
      '': 'FAILED',
      m: 'FAILED',
      'm[1]': 'CANCELLED',
      b: 'CANCELLED',
    });
    expect(simulation.run.instances.get('')?.error?.message).toBe('m: m[0]: boom');
  });

  test('is no map whose items would have cleaned up', () => {
    const graph = {
      nodes: [
        { id: 'a', run },
        { id: 'clean', run, join: 'ALL_DONE' },
      ],
      edges: [{ from: 'a', to: 'clean' }],
    };
    const map = { items: 'input.list', graph, mode: 'FAIL_FAST' };
    const simulation = begin(workflow({ m: { map, timeout: '5s', on_timeout: 'CONTINUE' } }, []));
    simulation.send({ type: 'computed', path: 'm', tries: 1, value: { json: '[]' }, items: 2 });
    simulation.send({ ...failed, path: 'm[0].a' });
    simulation.send({ type: 'ended', path: 'm[0].clean', tries: 1, state: 'SUCCEEDED' });
    expect(simulation.run.instances.get('m[1].a')).toMatchObject({ phase: 'execution', stopping: 'CANCELLED' });
    pass(simulation, 5_000);
    expect(simulation.finish().states()).toMatchObject({ '': 'FAILED', m: 'FAILED', 'm[1].clean': 'CANCELLED' });
  });

  test('is no run that took too long, or was cancelled', () => {
    const simulation = begin(workflow({ a: { run }, b: { run } }, [], { timeout: '60s' }));
    simulation.send(failed);
    pass(simulation, 60_000);
    expect(simulation.send(cancel).changed).toEqual([]);
    expect(simulation.finish().states()).toEqual({ '': 'FAILED', a: 'FAILED', b: 'CANCELLED' });
    expect(simulation.run.instances.get('')?.error?.message).toBe('a: boom');
  });

  test('ends as it is told that cannot go on', () => {
    const simulation = begin(workflow({ a: { run }, b: { run } }, []));
    simulation.send(failed);
    simulation.send({ ...cancel, state: 'FAILED' });
    expect(simulation.finish().run.instances.get('')?.error?.message).toMatch(/^enough, .*: a: boom$/);
  });

  test('is a workflow that failed within a run that is cancelled', () => {
    const inner = { ...(workflow({ a: { run }, b: { run } }, []) as object), name: 'inner' };
    const simulation = begin(workflow({ w: { workflow: { name: 'inner' } } }, []), [inner]);
    simulation.send({ type: 'computed', path: 'w', tries: 1, value: { json: '{}' } });
    simulation.send({ ...failed, path: 'w.a' });
    simulation.send(cancel);
    expect(simulation.finish().states()).toEqual({ '': 'CANCELLED', w: 'FAILED', 'w.a': 'FAILED', 'w.b': 'CANCELLED' });
  });

  test('can be ended while something is still to clean up', () => {
    const nodes = { a: { run }, b: { run }, clean: { run, join: 'ALL_DONE' } };
    const cancelled = begin(workflow(nodes, ['a -> clean', 'b -> clean'], { timeout: '60s' }));
    cancelled.send(failed);
    cancelled.send(cancel);
    expect(cancelled.finish().states()).toEqual({ '': 'CANCELLED', a: 'FAILED', b: 'CANCELLED', clean: 'CANCELLED' });
    const late = begin(workflow(nodes, ['a -> clean', 'b -> clean'], { timeout: '60s' }));
    late.send(failed);
    pass(late, 60_000);
    expect(late.finish().states()).toMatchObject({ '': 'TIMED_OUT', clean: 'CANCELLED' });
  });
});

describe('an error of any length', () => {
  const error = { code: Code.INPUT_INVALID, message: 'x'.repeat(7 * 1024 * 1024) };
  const events = {
    'of what cannot be computed': { type: 'not_computed', path: 'a', tries: 1, error },
    'of an execution': { type: 'ended', path: 'a', tries: 1, state: 'FAILED', error },
    'of who cancels': { type: 'cancel', error },
  } as const;

  test.each(Object.entries(events))('%s is cut where it comes into the run', (_, event) => {
    const simulation = new Simulation(workflow({ a: { run } }, []));
    simulation.send({ type: 'begin' });
    const { log } = simulation.send(event);
    simulation.finish();
    const kept = `${'x'.repeat(2 * 1024)}…`;
    const ends = event.type === 'cancel' ? kept : `a: ${kept}`;
    expect(simulation.run.instances.get('')?.error?.message).toBe(ends);
    if (event.type !== 'cancel') expect(simulation.run.instances.get('a')?.error?.message).toBe(kept);
    expect(log.length).toBeGreaterThan(0);
    for (const { message } of log) expect(message.length).toBeLessThan(3 * 1024);
  });
});

test('what was never accepted ends as it was to be stopped', () => {
  const simulation = new Simulation(workflow({ a: { run, timeout: '1s' } }, []));
  simulation.send({ type: 'begin' });
  simulation.nowMs += 1_000;
  simulation.send({ type: 'time' });
  simulation.send({
    type: 'not_computed',
    path: 'a',
    tries: 1,
    error: { code: Code.CANCELLED, message: 'not started' },
  });
  expect(simulation.states()).toEqual({ '': 'FAILED', a: 'TIMED_OUT' });
});

test('a chain of 5,000 nodes is passed over without a deep stack', () => {
  const nodes = Object.fromEntries(
    Array.from({ length: 5_000 }, (_, i) => [`n${i}`, i === 0 ? { condition: {} } : { run }]),
  );
  const edges = Array.from({ length: 4_999 }, (_, i) => `n${i} -> n${i + 1}${i === 0 ? ' ? x' : ''}`);
  const simulation = simulate(workflow(nodes, edges), { decide: () => [] });
  expect(simulation.states()).toMatchObject({ '': 'SUCCEEDED', n1: 'SKIPPED', n4999: 'SKIPPED' });
});

describe('a run with too many nodes', () => {
  const ids = Array.from({ length: 10 }, (_, i) => `x${i}`);
  const graph = { nodes: ids.map((id) => ({ id, condition: {} })) };

  test('is told before the items of a map begin', () => {
    const simulation = simulate(workflow({ m: { map: { items: 'x', graph } } }, []), { items: () => 10_000 });
    expect(simulation.run.instances.get('')?.error?.message).toBe(
      'm: its items are 110000 nodes beside the 2 of the run, which may have 100000',
    );
    expect(simulation.run.instances.size).toBe(2);
  });

  test('ends also when each of its maps alone would fit', () => {
    const map = { map: { items: 'x', graph, concurrency: 1 } };
    const simulation = new Simulation(workflow({ a: map, b: map }, []));
    const computed = (path: string, more: object = {}) =>
      simulation.send({ type: 'computed', path, tries: 1, value: { json: 'null' }, ...more });
    simulation.send({ type: 'begin' });
    for (const path of ['a', 'b']) computed(path, { items: 9_000 });
    for (let i = 0; i < 9_000; i++) computed(`a[${i}]`);
    let item = 0;
    while (simulation.state() === 'RUNNING') computed(`b[${item++}]`);
    expect(simulation.states()).toMatchObject({ '': 'FAILED', a: 'SUCCEEDED', b: 'FAILED' });
    expect(simulation.run.instances.get('')?.error?.message).toMatch(
      /^b: its items are 11 nodes beside the 9\d+ of the run/,
    );
    expect(simulation.run.instances.size).toBeLessThanOrEqual(100_000);
  });
});
