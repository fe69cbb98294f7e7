// biome-ignore-all lint/suspicious/noTemplateCurlyInString: that is what templates look like
import { describe, expect, test } from 'vitest';
import { Budget, compileExpression, ExpressionError, type Json } from './expression.ts';
import { compileTemplate } from './template.ts';

const evaluate = (text: string, bindings = {}): Json => compileExpression(text).evaluate(bindings);

/** A list that counts how often it is looked at. */
function watchedList(length: number): { list: Json[]; looks: () => number } {
  let looks = 0;
  const list = new Proxy<Json[]>(
    Array.from({ length }, (_, i) => i),
    {
      get: (target, property) => {
        looks++;
        return Reflect.get(target, property) as unknown;
      },
    },
  );
  return { list, looks: () => looks };
}

describe('an expression', () => {
  test.each<[string, Record<string, Json>, Json]>([
    ['input.count + 1', { input: { count: 2 } }, 3],
    ['input.count * 1.5', { input: { count: 3 } }, 4.5],
    ['0.5 - input.count', { input: { count: 3 } }, -2.5],
    ['input.count + 0.5', { input: { count: 3 } }, 3.5],
    ['input.count / 2.0', { input: { count: 3 } }, 1.5],
    ['uint(3)', {}, 3],
    ['{1u: 2u, true: "x"}', {}, { 1: 2, true: 'x' }],
    ['input.rate > 1 && input.rate < 2', { input: { rate: 1.5 } }, true],
    [
      'nodes["load-data"].output.items.filter(i, i.ok).map(i, i.n)',
      {
        nodes: {
          'load-data': {
            output: {
              items: [
                { ok: true, n: 1 },
                { ok: false, n: 2 },
              ],
            },
          },
        },
      },
      [1],
    ],
    ['has(input.x) ? input.x : "none"', { input: {} }, 'none'],
    ['{"a": [input.x, null], "b": {"c": true}}', { input: { x: 'y' } }, { a: ['y', null], b: { c: true } }],
    ['input.name.lowerAscii()', { input: { name: 'ADA' } }, 'ada'],
    ['timestamp("2026-01-01T00:00:00Z") + duration("90m")', {}, '2026-01-01T01:30:00Z'],
    ['"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!".matches("(a+)+$")', {}, false],
  ])('%s', (text, bindings, value) => {
    expect(evaluate(text, bindings)).toEqual(value);
  });

  test.each<[string, Record<string, Json>, string | RegExp]>([
    ['input.x ==', {}, '"input.x ==" is not an expression: at character 9: found = but expecting end of input'],
    ['input.missing.y', { input: {} }, '"input.missing.y" has no value: field not found: missing'],
    ['input.x', {}, '"input.x" has no value'],
    ['1\n2', {}, 'at line 2, character'],
    ['['.repeat(50_000), {}, 'is not an expression: it goes too deep'],
    ['google.protobuf.Nothing{value: input.x}', {}, 'has no value'],
    ['1 / 0', {}, 'divide by zero'],
    [
      'nodes.score.output.score > 8',
      { nodes: { score: { output: { score: 'high' } } } },
      /^"nodes\.score\.output\.score > 8" has no value: .*; nodes\.score\.output\.score is "high"$/,
    ],
    ['1.0 / 0.0', {}, 'Infinity'],
    ['9007199254740993', {}, 'too large to be exact'],
    ['b"x"', {}, 'of a kind that JSON does not know'],
    ['input.list.map(i, i)', { input: { list: Array.from({ length: 50_000 }, (_, i) => i) } }, 'has no value'],
  ])('%s has no value', (text, bindings, message) => {
    expect(() => evaluate(text, bindings)).toThrow(ExpressionError);
    expect(() => evaluate(text, bindings)).toThrow(message);
  });

  test('that takes too long is given up', () => {
    const list = Array.from({ length: 400 }, (_, i) => i);
    expect(() => evaluate('l.all(a, l.all(b, l.all(c, a + b + c >= 0)))', { l: list })).toThrow('longer than');
  });

  test('looks only at what it names of what it could see', () => {
    const { list, looks } = watchedList(1_000);
    expect(
      evaluate('input.x + input.list[998] + variables.y.z', {
        input: { x: 1, list },
        variables: { y: { z: 2, list } },
      }),
    ).toBe(1_001);
    expect(looks()).toBeLessThan(10);
  });

  test('sees objects and lists whole: their members, sizes, and what is equal to them', () => {
    const input = { o: { a: 1, b: [1, { c: null }], size: 3, constructor: 'x' }, e: {}, l: [[1], [2, 3]] };
    const see = (text: string) => evaluate(text, { input });
    expect(see('input')).toEqual(input);
    expect(see('[size(input.o), size(input.l), size(input.e), size(input.l[1])]')).toEqual([4, 2, 0, 2]);
    expect(see('input.o.map(k, k)')).toEqual(['a', 'b', 'size', 'constructor']);
    expect(see('["a" in input.o, "toString" in input.o, 1 in input.o, [1] in input.l, 5 in input.l[1]]')).toEqual([
      ...[true, false, false, true, false],
    ]);
    expect(see('input.o == {"a": 1, "b": [1, {"c": null}], "size": 3, "constructor": "x"}')).toBe(true);
    expect(see('input.l + [[4]] == [[1], [2, 3], [4]]')).toBe(true);
    expect(() => see('input.o.toString')).toThrow('field not found: toString');
    expect(() => see('input.l[2]')).toThrow('has no value');
  });

  test('tells what it refers to', () => {
    const { names } = compileExpression(
      'nodes.a.output.x + nodes["b-c"].output + [1].map(v, v + input.r)[variables.i]',
    );
    expect([...names.roots].toSorted()).toEqual(['input', 'nodes', 'variables']);
    expect([...names.nodes]).toEqual(['a', 'b-c']);
    expect(names.anyNode).toBe(false);
    expect(compileExpression('nodes[input.which].output').names.anyNode).toBe(true);
    expect(compileExpression('input.list.exists(nodes, nodes.x)').names.nodes.size).toBe(0);
  });
});

describe('a template', () => {
  const bindings = { input: { name: 'Ada', list: [1, 2], n: 3 } };
  test.each<[Json, Json]>([
    ['${input.list}', [1, 2]],
    ['Hello, ${input.name}! ${input.n + 1} ${input.list}', 'Hello, Ada! 4 [1,2]'],
    [
      { a: ['${input.n}', 'x', 7, null], 'b.c': { d: '${ {"x": "}"} }' } },
      { a: [3, 'x', 7, null], 'b.c': { d: { x: '}' } } },
    ],
    ['${"a\\"}b"}', 'a"}b'],
    ['costs $5 and $${input}', 'costs $5 and ${input}'],
    ['', ''],
  ])('%j', (template, value) => {
    expect(compileTemplate(template).evaluate(bindings)).toEqual(value);
  });

  test('is evaluated no further when its time is over, and nothing else of its node is', () => {
    const { list, looks } = watchedList(10);
    const long = Array.from({ length: 400 }, (_, i) => i);
    const slow = '${input.long.all(a, input.long.all(b, input.long.all(c, a + b + c >= 0)))}';
    const budget = new Budget();
    const given = { input: { long, list } };
    expect(() => compileTemplate([slow, ...Array(100).fill('${input.list[0]}')]).evaluate(given, budget)).toThrow(
      /^"input\.long\.all.* has no value: the expressions of its node take longer than 250 ms together/,
    );
    expect(() => compileExpression('input.list[0]').evaluate(given, budget)).toThrow(
      '"input.list[0]" has no value: the expr',
    );
    expect(() => compileTemplate('${input.list[0]}').evaluate(given, budget)).toThrow(ExpressionError);
    expect(looks()).toBe(0);
    expect(compileExpression('input.list[7]').evaluate(given)).toBe(7);
    expect(looks()).toBeGreaterThan(0);
  });

  test('may have many expressions', () => {
    const values = compileTemplate(Array(2_000).fill('${input.n}')).evaluate(bindings);
    expect(values).toEqual(Array(2_000).fill(3));
  });

  test('makes no more than a run could keep, however little time that takes', () => {
    const input = { text: 'x'.repeat(1024 * 1024), list: Array<Json>(512 * 1024).fill(1) };
    const times = (n: number, name = 'text') => compileTemplate(Array(n).fill(`\${input.${name}}`)).evaluate({ input });
    expect(times(16)).toEqual(Array(16).fill(input.text));
    expect(() => times(1_000, 'list')).toThrow('"input.list" has no value: the expressions of its node ');
    expect(() => times(17)).toThrow(
      '"input.text" has no value: the expressions of its node make more than 16777216 characters of JSON',
    );
  });

  test('that is wrong says where', () => {
    expect(() => compileTemplate({ a: [{ b: '${1 +}' }] })).toThrow('a[0].b: "1 +" is not an expression');
    expect(() => compileTemplate('${input')).toThrow('does not close it');
  });
});
