import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { isRequirement, parsePin } from './requirement-syntax.ts';

/** Pieces that requirements are made of, and what must never come through. */
const PIECES = [
  'a',
  '1',
  '.',
  '-',
  '_',
  ' ',
  '\t',
  '[',
  ']',
  '(',
  ')',
  ',',
  '==',
  '>=',
  ';',
  '"',
  "'",
  '\\',
  '$',
  '@',
  '/',
];
const text = fc.array(fc.constantFrom(...PIECES, '--hash=sha256:', '--pre', '\u00a0', '\n', '#'), { maxLength: 12 });

describe('what is taken', () => {
  test('is never an option, a path, a URL or a second line, and the pin of it is one too', () => {
    fc.assert(
      fc.property(text, (pieces) => {
        const line = pieces.join('');
        const pin = parsePin(line);
        if (pin !== undefined) {
          const plain = `${pin.name}==${pin.version}${pin.marker}${pin.hashes.map((hash) => ` --hash=${hash}`).join('')}`;
          expect(parsePin(plain)).toEqual(pin);
          expect(isRequirement(`${pin.name}==${pin.version}${pin.marker}`)).toBe(true);
        }
        if (isRequirement(line)) expect(line).not.toMatch(/^-|\s-(?![^[]*\])|[@/\\$\n#]/);
      }),
      { numRuns: 5_000 },
    );
  });

  test('is what is made of a name, versions, a marker and hashes', () => {
    const name = fc.stringMatching(/^[a-z]([a-z0-9._-]{0,8}[a-z0-9])?$/);
    const version = fc.stringMatching(/^[0-9]{1,3}(\.[0-9]{1,3}){0,3}$/);
    const marker = fc.constantFrom('', ' ; python_version < "3.12"', '; os_name == \'posix\' and (a >= "1")');
    const hashes = fc.array(fc.stringMatching(/^[0-9a-f]{8}$/), { maxLength: 3 });
    fc.assert(
      fc.property(name, version, marker, hashes, (name, version, marker, digests) => {
        const line = `${name} == ${version}${marker}${digests.map((digest) => ` --hash sha256:${digest}`).join('')}`;
        const expected = { name, version, marker, hashes: digests.map((digest) => `sha256:${digest}`) };
        expect(parsePin(line)).toEqual(expected);
        expect(isRequirement(`${name}[extra, other] == ${version}${marker}`)).toBe(true);
      }),
    );
  });
});

// An engine that tries all ways to read these would not come to an end within the time of a test.
test.each([
  ['blanks behind a name', `a${' '.repeat(500_000)}@`],
  ['blanks behind a pin', `a==1${' '.repeat(500_000)}@`],
  ['blanks in a marker', `a==1;${' '.repeat(500_000)}@`],
  ['a long name', `${'a'.repeat(500_000)}@`],
  ['a long version', `a==${'1.'.repeat(250_000)}@`],
  ['extras without end', `a[${'a, '.repeat(150_000)}`],
  ['hashes and nothing', `a==1${' --hash=sha256:a'.repeat(30_000)} `],
])('%s take no longer than their length', (_, line) => {
  expect([isRequirement(line), parsePin(line)]).toEqual([false, undefined]);
});
