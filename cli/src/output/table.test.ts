import { describe, expect, it } from 'vitest';
import { formatFields, formatTable } from './table.ts';

describe('formatTable', () => {
  const rows = [
    ['1', 'SUCCEEDED', ''],
    ['22', '\u001b[31mFAILED\u001b[39m', 'bad\tnews\n'],
  ];

  it('aligns below a heading on a terminal, whatever the colours', () => {
    expect(formatTable(['ID', 'STATE', 'ERROR'], rows, true).split('\n')).toEqual([
      expect.stringMatching(/ID.* {2}.*STATE.* {6}.*ERROR/),
      '1   SUCCEEDED',
      '22  \u001b[31mFAILED\u001b[39m     bad\tnews',
      '',
    ]);
  });

  it('parts cells by tabs elsewhere, without heading and colour, one row a line', () => {
    expect(formatTable(['ID', 'STATE', 'ERROR'], rows, false)).toBe('1\tSUCCEEDED\t\n22\tFAILED\tbad news \n');
  });
});

describe('formatFields', () => {
  it('leaves out what has no value', () => {
    expect(
      formatFields(
        [
          ['id', '1'],
          ['error', ''],
          ['state', 'RUNNING'],
        ],
        false,
      ),
    ).toBe('id\t1\nstate\tRUNNING\n');
  });
});
