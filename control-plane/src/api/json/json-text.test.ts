import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodeUtf8, MAX_JSON_DEPTH, nestsDeeperThan, parseJson, parseJsonObject } from './json-text.ts';

test('malformed JSON is refused with its position', () => {
  expect(() => parseJson('{"a": 1,\n "b": }')).toThrow(
    'body: malformed JSON at line 2, column 7: expected a value, got "}"',
  );
});

test.each([
  ['[]', 'an array'],
  ['null', 'null'],
  ['"a"', 'a string'],
  ['1', 'a number'],
])('%s is not an object', (text, kind) => {
  expect(() => parseJsonObject(text)).toThrow(`body: expected a JSON object, got ${kind}`);
});

test('nesting is limited', () => {
  const nested = (levels: number) => '['.repeat(levels) + ']'.repeat(levels);
  expect(parseJson(nested(MAX_JSON_DEPTH))).toBeDefined();
  expect(() => parseJson(nested(MAX_JSON_DEPTH + 1))).toThrow('body: JSON nests deeper than 100 levels');
  expect(() => parseJson('{"a":'.repeat(1_000_000))).toThrow('body: JSON nests deeper than 100 levels');
});

test('brackets in strings do not nest', () => {
  expect(parseJson(JSON.stringify({ a: `\\"${'[{'.repeat(500)}` }))).toBeDefined();
});

test('the depth is that of the value', () => {
  const depthOf = (value: unknown): number =>
    typeof value === 'object' && value !== null ? 1 + Math.max(0, ...Object.values(value).map(depthOf)) : 0;
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 6 }), fc.integer({ min: 0, max: 8 }), (value, levels) => {
      const text = JSON.stringify(value).padEnd(100);
      expect(nestsDeeperThan(text, levels)).toBe(depthOf(value) > levels);
    }),
  );
});

test('bytes that are not UTF-8 are refused', () => {
  expect(() => decodeUtf8(Uint8Array.from([0x7b, 0xff, 0x7d]))).toThrow('body: not valid UTF-8');
});
