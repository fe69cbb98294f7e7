import type { JsonObject } from '@bufbuild/protobuf';
import { HarrierError } from '@harrier/shared';
import { describe, expect, test } from 'vitest';
import { checkSchema, violationsOf } from './json-schema.ts';
import { compilePattern } from './linear-pattern.ts';

function violations(schema: object, value: unknown): string | undefined {
  const text = JSON.stringify(value);
  return violationsOf(schema as JsonObject, JSON.stringify(schema), value, Buffer.byteLength(text));
}

function refusal(schema: object): HarrierError {
  try {
    checkSchema(schema as JsonObject, 'module.input_schema');
  } catch (error) {
    if (error instanceof HarrierError) return error;
    throw error;
  }
  throw new Error('the schema was taken');
}

const word = { properties: { word: { type: 'string', pattern: '^(a+)+$' } } };

describe('patterns', () => {
  test('that would take the engine of JavaScript for ever are answered', () => {
    checkSchema(word, 'module.input_schema');
    expect(violations(word, { word: 'a'.repeat(50_000) })).toBeUndefined();
    expect(violations(word, { word: `${'a'.repeat(50_000)}!` })).toBe('/word must match pattern "^(a+)+$"');
    const names = { patternProperties: { '^(x+x+)+y$': { type: 'number' } } };
    expect(violations(names, { [`${'x'.repeat(5_000)}z`]: 'any' })).toBeUndefined();
    expect(violations(names, { [`${'x'.repeat(5_000)}y`]: 'any' })).toMatch(/must be number$/);
  });

  test.each([
    ['^(?!x)', '.properties.word.pattern'],
    ['(?<=a)b', '.properties.word.pattern'],
    ['(a)\\1', '.properties.word.pattern'],
    ['(?<n>a)\\k<n>', '.properties.word.pattern'],
    ['a{1,2000}', '.properties.word.pattern'],
  ])('%s is refused with its place', (pattern, place) => {
    const error = refusal({ properties: { word: { pattern } } });
    expect(error).toMatchObject({ code: 'invalid_argument', field: `module.input_schema${place}` });
    expect(error.message).toContain(JSON.stringify(pattern));
  });

  test('names of properties are refused with their place too', () => {
    const error = refusal({ allOf: [{}, { items: { patternProperties: { '(?=a)': {} } } }] });
    expect(error.field).toBe('module.input_schema.allOf[1].items.patternProperties');
  });

  test.each([
    ['^\\d{3}-\\d{4}$', '555-1234', '555-12345'],
    ['^\\p{Lu}\\w*$', 'Ä', 'ä'],
    ['^\\u00e9\\x41\\/[\\-]$', 'éA/-', 'e'],
    ['^\\ud83d\\ude00$', '😀', ':)'],
    ['^\\u{1F600}$', '😀', ':)'],
    ['^[^]{2}$', '\n\n', 'a'],
    ['^(?:a|b)*?$', '', 'c'],
    ['^.$', '😀', ''],
    ['^a$', 'a', 'a\n'],
    ['b', 'abc', 'ac'],
  ])('%s means what it means in ECMA-262', (pattern, match, other) => {
    for (const text of [match, other])
      expect(compilePattern(pattern).test(text)).toBe(new RegExp(pattern, 'u').test(text));
    expect(compilePattern(pattern).test(match)).toBe(true);
    expect(compilePattern(pattern).test(other)).toBe(false);
  });

  test('what is no regular expression in ECMA-262 is refused, whatever RE2 makes of it', () => {
    for (const pattern of ['(', 'a{,5}', '\\Qa+\\E', '[[:alpha:]]', '(?P<n>a)']) {
      expect(() => compilePattern(pattern)).toThrow('Invalid regular expression');
    }
  });
});

describe('schemas that ask for too much', () => {
  test('references that double at every level are given up, and others are served after it', () => {
    const levels = Object.fromEntries(
      Array.from({ length: 60 }, (_, i) => [
        `l${i}`,
        { allOf: [{ $ref: `#/$defs/l${i + 1}` }, { $ref: `#/$defs/l${i + 1}` }] },
      ]),
    );
    const schema = { $defs: { ...levels, l60: { type: 'object', minProperties: 0 } }, $ref: '#/$defs/l0' };
    expect(violations(schema, {})).toMatch(/^it could not be checked: it takes longer than 500 ms$/);
    expect(violations(word, { word: 'a' })).toBeUndefined();
  });

  test('a long list of different objects is given up', () => {
    const items = Array.from({ length: 200_000 }, (_, i) => ({ i }));
    expect(violations({ properties: { items: { uniqueItems: true } } }, { items })).toMatch(/could not be checked/);
    expect(
      violations({ properties: { items: { uniqueItems: true } } }, { items: items.slice(0, 100) }),
    ).toBeUndefined();
  });

  test('one that is too large or too deep is refused', () => {
    expect(refusal({ description: 'x'.repeat(130 * 1024) }).message).toMatch(/at most 131072 are allowed/);
    let deep: object = {};
    for (let i = 0; i < 33; i++) deep = { not: deep };
    expect(refusal(deep)).toMatchObject({
      field: 'module.input_schema',
      message: expect.stringMatching(/\.not: nested deeper than 32 levels$/),
    });
  });
});

test('names and values of any length are cut where they are told', () => {
  const long = 'k'.repeat(1_000_000);
  const other = `$ must NOT have additional properties ("${'k'.repeat(199)}…)`;
  expect(violations({ additionalProperties: false }, { [long]: 1 })).toBe(other);
  const where = `/${'k'.repeat(199)}… must be string`;
  expect(violations({ additionalProperties: { type: 'string' } }, { [long]: 1 })).toBe(where);
  const allowed = `$ must be equal to one of the allowed values (["${'k'.repeat(198)}…)`;
  expect(violations({ enum: ['k'.repeat(10_000)] }, 'a')).toBe(allowed);
  const pattern = `$ must match pattern "${'k'.repeat(180)}…`;
  expect(violations({ pattern: 'k'.repeat(10_000) }, 'a')).toBe(pattern);
});

test('all that is wrong with a document is told, of a large one the first', () => {
  const schema = { properties: { list: { items: { type: 'string' } } } };
  expect(violations(schema, { list: [1, 'a', 2] })).toBe('/list/0 must be string; /list/2 must be string');
  expect(violations(schema, { list: Array.from({ length: 1_000_000 }, () => 1) })).toBe('/list/0 must be string');
});
