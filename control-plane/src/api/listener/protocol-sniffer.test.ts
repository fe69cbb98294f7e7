import fc from 'fast-check';
import { expect, test } from 'vitest';
import { classify } from './protocol-sniffer.ts';

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

test('every beginning of the HTTP/2 preface is undecided until its first line is complete', () => {
  for (let length = 0; length < 16; length++) expect(classify(PREFACE.subarray(0, length))).toBeUndefined();
  for (let length = 16; length <= PREFACE.length; length++) expect(classify(PREFACE.subarray(0, length))).toBe('http2');
});

test.each(['GET / HTTP/1.1\r\n', 'PRIX', 'POST', 'PUT', 'P0', '\x16\x03\x01', '\0'])('%j is not HTTP/2', (text) => {
  expect(classify(Buffer.from(text, 'latin1'))).toBe('http1');
});

test('more bytes never change what was decided', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 20 }), fc.uint8Array({ maxLength: 20 }), (first, more) => {
      const early = classify(first);
      const late = classify(Buffer.concat([first, more]));
      expect(early === undefined || early === late).toBe(true);
    }),
  );
});
