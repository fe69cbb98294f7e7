import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseResponse, requestDocument } from './container-protocol.ts';

const parse = (text: string) => parseResponse(Buffer.from(text));

test('a request holds the texts as they came', () => {
  const input = Buffer.from('{ "n": 1.0 }');
  const plain = requestDocument({ schemaIn: '{"type": "object"}', schemaOut: '', input, module: undefined });
  expect(Buffer.from(plain).toString()).toBe('{"schema_in":{"type": "object"},"schema_out":{},"input":{ "n": 1.0 }}\n');
  const module = { source: 'x\n"', handler: 'handler', filename: 'm.js' };
  const document = requestDocument({ schemaIn: '', schemaOut: '', input, module });
  expect(JSON.parse(Buffer.from(document).toString()).module).toEqual(module);
});

describe('a response', () => {
  test.each([
    ['{"ok":true,"output":{"n":1.0}}', '{"n":1.0}'],
    [' {"output" : { "a" : "}\\"" , "b":[1, {}]} , "ok" : true} \n', '{ "a" : "}\\"" , "b":[1, {}]}'],
    [
      '{"ok":true,"output":{"x":1},"extra":[{"output":5}],"output":{"last":12345678901234567890}}',
      '{"last":12345678901234567890}',
    ],
    ['{"ok":true,"\\u006futput":{}}', '{}'],
  ])('%s has the output %s', (text, output) => expect(parse(text)).toEqual({ kind: 'ok', output }));

  test.each([
    [
      '{"ok":false,"error":{"message":"m","code":"C","details":{"a":1}}}',
      { code: 'C', message: 'm', details: { a: 1 } },
    ],
    ['{"ok":false,"error":{}}', { code: '', message: '', details: undefined }],
  ])('%s is an error', (text, error) => expect(parse(text)).toEqual({ kind: 'error', ...error }));

  test.each([
    '',
    '1',
    '[]',
    'null',
    '{}',
    '{"ok":1}',
    '{"ok":true}',
    '{"ok":true,"output":1}',
    '{"ok":false}',
    '{"ok":true,"output":{}} x',
    '{"ok":true,"output":{"a":Infinity}}',
  ])('%s is invalid', (text) => expect(parse(text)).toMatchObject({ kind: 'invalid' }));

  test('has at most 32 levels', () => {
    const nested = (levels: number) => `{"ok":true,"output":{"a":${'['.repeat(levels - 1)}${']'.repeat(levels - 1)}}}`;
    expect(parse(nested(32))).toMatchObject({ kind: 'ok' });
    expect(parse(nested(33))).toMatchObject({ kind: 'invalid' });
  });

  test('whatever its output is, and however it is written, it is found', () => {
    const object = fc.dictionary(fc.string(), fc.jsonValue());
    fc.assert(
      fc.property(object, object, fc.constantFrom(undefined, 1, '\t'), (output, other, indent) => {
        const written = JSON.stringify(output, null, indent);
        const text = `{"other":${JSON.stringify(other, null, indent)},"output":${written},"ok":true}`;
        const deep = parse(text);
        if (deep.kind === 'ok') expect(deep.output).toBe(written);
        else expect(deep).toMatchObject({ problem: expect.stringContaining('deeper') });
      }),
    );
  });
});
