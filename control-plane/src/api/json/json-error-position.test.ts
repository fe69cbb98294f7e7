import fc from 'fast-check';
import { expect, test } from 'vitest';
import { findJsonError } from './json-error-position.ts';

test.each([
  ['', 1, 1, 'the text ends where a value was expected'],
  ['{"a":}', 1, 6, 'expected a value, got "}"'],
  ['{"a" 1}', 1, 6, 'expected ":", got "1"'],
  ['{a: 1}', 1, 2, 'expected a property name in double quotes, got "a"'],
  ['{"a": 1,}', 1, 9, 'expected a property name in double quotes, got "}"'],
  ['[1,\n  2,\n  x]', 3, 3, 'expected a value, got "x"'],
  ['[1 2]', 1, 4, 'expected "," or "]", got "2"'],
  ['{"a": 1', 1, 8, 'the text ends where "," or "}" was expected'],
  ['"abc', 1, 5, 'the text ends inside a string'],
  ['"a\\q"', 1, 3, 'bad escape in a string'],
  ['"a\nb"', 1, 3, 'a control character in a string must be escaped'],
  ['{} {}', 1, 4, 'expected the end, got "{"'],
  ['01', 1, 2, 'expected the end, got "1"'],
  ['NaN', 1, 1, 'expected a value, got "N"'],
  ["{'a': 1}", 1, 2, 'expected a property name in double quotes, got "\'"'],
])('%j is wrong at line %i, column %i', (text, line, column, problem) => {
  expect(findJsonError(text)).toEqual({ line, column, problem });
});

function engineAccepts(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

test('every JSON text is right', () => {
  fc.assert(
    fc.property(fc.json(), fc.constantFrom(undefined, 1, '\t'), (text, indent) => {
      expect(findJsonError(JSON.stringify(JSON.parse(text), null, indent))).toBeUndefined();
    }),
  );
});

test('agrees with the engine on texts that are nearly JSON', () => {
  const token = fc.constantFrom(
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '"a"',
    '"',
    '\\',
    '1',
    '-',
    '.5',
    'e3',
    'true',
    'nul',
    ' ',
    '\n',
    '\0',
  );
  fc.assert(
    fc.property(fc.array(token, { maxLength: 12 }), (tokens) => {
      const text = tokens.join('');
      expect(findJsonError(text) === undefined).toBe(engineAccepts(text));
    }),
    { numRuns: 2_000 },
  );
  fc.assert(
    fc.property(fc.json(), fc.nat(), fc.string({ maxLength: 2 }), (json, at, inserted) => {
      const text = json.slice(0, at % (json.length + 1)) + inserted + json.slice((at % (json.length + 1)) + 1);
      expect(findJsonError(text) === undefined).toBe(engineAccepts(text));
    }),
    { numRuns: 1_000 },
  );
});

test('deep nesting needs no stack', () => {
  expect(findJsonError('['.repeat(1_000_000))?.column).toBe(1_000_001);
});
