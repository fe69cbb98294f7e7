// biome-ignore-all lint/suspicious/noTemplateCurlyInString: that is what templates look like
import type { JsonValue } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Json } from './expression.ts';
import { InMemoryRun } from './test-support/in-memory.ts';

interface Node {
  kind: 'run' | 'transform' | 'map' | 'inner';
  fails: number;
  sets: boolean;
  before: number[];
}

/** Graphs of numbers: each node adds one to the sum of those before it. */
const graphs = fc.array(
  fc.record<Node>({
    kind: fc.constantFrom('run', 'run', 'transform', 'map', 'inner'),
    fails: fc.constantFrom(0, 0, 1, 2),
    sets: fc.boolean(),
    before: fc.uniqueArray(fc.nat(7), { maxLength: 3 }),
  }),
  { minLength: 1, maxLength: 8 },
);

const predecessors = (nodes: readonly Node[], i: number) => (nodes[i]?.before ?? []).filter((from) => from < i);

/** What a node before another one has made: the variable that it sets, or its output. */
const madeBy = (nodes: readonly Node[], from: number) =>
  nodes[from]?.sets ? `variables.v${from}` : `nodes.n${from}.output`;

function definitionOf(nodes: readonly Node[]): Record<string, JsonValue> {
  return {
    variables: Object.fromEntries(nodes.map((_, i) => [`v${i}`, -1_000])),
    nodes: nodes.map(({ kind, sets }, i) => {
      const sum = ['1', ...predecessors(nodes, i).map((from) => madeBy(nodes, from))].join(' + ');
      const run = { module: 'm' };
      const body: Record<Node['kind'], Record<string, JsonValue>> = {
        run: { run, input: { sum: `\${${sum}}` } },
        transform: { transform: { expression: sum } },
        map: { map: { items: `[${sum}, 0]`, run, concurrency: 1 }, input: { sum: '${item}' } },
        inner: { workflow: { name: 'inner' }, input: { sum: `\${${sum}}` } },
      };
      return {
        ...{ id: `n${i}`, ...body[kind], retry: { max_attempts: 3, initial_backoff: '0.001s', jitter_ratio: 0 } },
        ...(sets ? { set_variables: { [`v${i}`]: kind === 'map' ? 'output[0]' : 'output' } } : {}),
      };
    }),
    edges: nodes.flatMap((_, i) => predecessors(nodes, i).map((from) => ({ from: `n${from}`, to: `n${i}` }))),
    output: Object.fromEntries(nodes.map((_, i) => [`n${i}`, `\${nodes.n${i}.output}`])),
  };
}

const inner = {
  ...{ name: 'inner', version: '1.0.0', output: '${nodes.x.output}' },
  nodes: [{ id: 'x', run: { module: 'm' }, input: { sum: '${input.sum}' } }],
};

test('a run has the same values and the same executions, wherever its process dies', async () => {
  await fc.assert(
    fc.asyncProperty(
      // What a map makes is a list: nothing is added to it.
      graphs.map((nodes) =>
        nodes.map((node) => ({ ...node, before: node.before.filter((from) => nodes[from]?.kind !== 'map') })),
      ),
      fc.array(fc.constantFrom('before', 'after', undefined), { maxLength: 60 }),
      fc.boolean(),
      async (nodes, deaths, refusesAgain) => {
        const tries = new Map<string, number>();
        const made = new InMemoryRun(definitionOf(nodes), {
          others: [inner],
          // The module of an execution is deleted as soon as that was accepted.
          refuses: (_, accepted) => refusesAgain && accepted,
          dies: (step) => deaths[step - 1],
          work: (input, path) => {
            const count = (tries.get(path) ?? 0) + 1;
            tries.set(path, count);
            const node = nodes[Number(/^n(\d+)/.exec(path)?.[1])];
            // The workflow is tried again, not the node within it.
            if (count <= (node?.fails ?? 0)) throw new Error('not yet');
            return (input as { sum: number }).sum;
          },
        });
        await made.end();
        const expected: Json[] = [];
        for (const [i, { kind }] of nodes.entries()) {
          const sum = predecessors(nodes, i).reduce((total, from) => total + Number(expected[from]), 1);
          expected.push(kind === 'map' ? [sum, 0] : sum);
        }
        const first = (value: Json | undefined) => (Array.isArray(value) ? value[0] : value);
        expect(made.instance('').error?.message).toBeUndefined();
        expect(made.outputOf('')).toEqual(Object.fromEntries(expected.map((value, i) => [`n${i}`, value])));
        expect(made.instance('').variables ?? {}).toEqual(
          Object.fromEntries(nodes.flatMap(({ sets }, i) => (sets ? [[`v${i}`, first(expected[i])]] : []))),
        );
        // Each end is told once, those within a workflow that is tried again for each of its tries. With a process that died
        // after it had stored a step, what it would have told is gone.
        const ends = Map.groupBy(made.ended, ({ path }) => path);
        for (const path of made.rows.keys()) {
          const told = ends.get(path)?.map(({ state }) => state) ?? [];
          const fails = path.endsWith('.x') ? (nodes[Number(/^n(\d+)/.exec(path)?.[1])]?.fails ?? 0) : 0;
          const expected = [...Array.from({ length: fails }, () => 'FAILED'), 'SUCCEEDED'];
          if (deaths.includes('after')) expect(told.length).toBeLessThanOrEqual(expected.length);
          else expect([path, told]).toEqual([path, expected]);
        }
        // One execution a try, and no try more than it took.
        const paths = nodes.flatMap(({ kind, fails }, i) => {
          const id = `n${i}`;
          const of = { run: [id], transform: [], map: [`${id}[0]`, `${id}[1]`], inner: [`${id}.x`] }[kind];
          return of.map((path): [string, number] => [path, fails + 1]);
        });
        expect(Object.fromEntries(tries)).toEqual(Object.fromEntries(paths));
      },
    ),
    { numRuns: 60 },
  );
});
