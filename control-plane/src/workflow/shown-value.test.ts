import { describe, expect, test } from 'vitest';
import { compileExpression } from './expression.ts';
import type { Json } from './expression-value.ts';
import { cut, shown, shownValues } from './shown-value.ts';

describe('a value that is shown', () => {
  test.each<Json>([
    ...[null, true, 1.5, '', 'a "quoted" text', [], {}],
    ...[[[], {}], { a: { b: [1, 'x', null] }, 'c d': '' }, 'x'.repeat(198), Array(99).fill(1)],
  ])('is JSON: %j', (value) => {
    expect(shown(value)).toBe(JSON.stringify(value));
  });

  test.each<[string, Json]>([
    ['a text', 'x'.repeat(199)],
    ['a text that is escaped', '"'.repeat(150)],
    ['a list', Array(101).fill(1)],
    ['lists in lists', Array(5).fill(Array(30).fill('y'))],
    ['names', { ['n'.repeat(150)]: { ['m'.repeat(150)]: 1 }, other: 1 }],
    ['what is after a long one', ['x'.repeat(190), { a: 'y'.repeat(50) }, 1, 2, 3]],
  ])('is cut: %s', (_, value) => {
    expect(shown(value)).toBe(`${JSON.stringify(value).slice(0, 200)}…`);
  });

  test('is not looked at beyond what is shown, however deep and long it is', () => {
    let deep: Json = [];
    for (let i = 0; i < 100_000; i++) deep = [deep];
    expect(shown(deep)).toBe(`${'['.repeat(200)}…`);
    let looks = 0;
    const long = new Proxy<Json[]>(Array(1_000_000).fill(7), {
      get: (target, property) => {
        looks++;
        return Reflect.get(target, property) as unknown;
      },
    });
    expect(shown(long)).toHaveLength(201);
    expect(looks).toBeLessThan(1_000);
  });
});

test('a text is cut between characters', () => {
  expect([cut('abcd', 4), cut('abcde', 4), cut('abc😀', 4)]).toEqual(['abcd', 'abcd…', 'abc\ufffd…']);
});

describe('the values that an expression reads', () => {
  const bindings = {
    input: { who: 'Ada', list: [{ n: 1 }, { n: 2 }] },
    nodes: { 'load-data': { state: 'SUCCEEDED', output: { score: 'high' } } },
    variables: { d: 0 },
    index: 3,
  };

  test.each([
    ['nodes["load-data"].output.score > 8', 'nodes["load-data"].output.score is "high"'],
    ['input.list[1].n / variables.d + index', 'input.list[1].n is 2, variables.d is 0, index is 3'],
    ['input.list[variables.d].n', 'input.list is [{"n":1},{"n":2}], variables.d is 0'],
    ['input.missing.deep > 1', `input is ${JSON.stringify(bindings.input)}`],
    ['input.list[7]', 'input.list is [{"n":1},{"n":2}]'],
    ['input.who.size() > variables.d || input.who == "x"', 'input.who is "Ada", variables.d is 0'],
    ['input.list.map(i, i.n + variables.d)', 'input.list is [{"n":1},{"n":2}], variables.d is 0'],
    ['{"a": [input.who]}.a', 'input.who is "Ada"'],
    ['item.x + 1', ''],
    ['1 / 0', ''],
  ])('%s', (text, told) => {
    expect(shownValues(bindings, compileExpression(text).names.chains)).toBe(told);
  });

  test('are told no more than a few of', () => {
    const input = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`v${i}`, i]));
    const text = Object.keys(input)
      .map((name) => `input.${name}`)
      .join(' + ');
    const told = shownValues({ input }, compileExpression(text).names.chains);
    expect(told.split(', ')).toEqual(Array.from({ length: 8 }, (_, i) => `input.v${i} is ${i}`));
  });
});
