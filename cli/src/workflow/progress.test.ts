import { create } from '@bufbuild/protobuf';
import {
  WorkflowRunNode_State as State,
  type WorkflowRunNode,
  WorkflowRunNodeSchema,
} from '@harrier/shared/gen/workflow';
import { expect, test } from 'vitest';
import type { Row } from './outline.ts';
import { drawProgress, progressLines } from './progress.ts';

const WIDE = { rows: 24, columns: 80 };

/** @param state undefined: it was not reached */
function row(
  path: string,
  state?: State,
  more: Partial<WorkflowRunNode> & { after?: string[]; depth?: number } = {},
): Row {
  const { after = [], depth = 0, ...fields } = more;
  const node = state === undefined ? undefined : create(WorkflowRunNodeSchema, { path, state, ...fields } as never);
  return { path, depth, kind: 'run', after, node };
}

const many = (count: number, running: number) =>
  Array.from({ length: count }, (_, i) => row(`n${i}`, i === running ? State.RUNNING : State.SUCCEEDED));

/** What a terminal shows after what was written to it: as much of VT100 as is written. */
class Screen {
  readonly lines: string[];
  #at = 0;
  #column = 0;
  #wraps = true;
  readonly #columns: number;

  constructor({ rows, columns }: { rows: number; columns: number }) {
    this.lines = Array.from({ length: rows }, () => '');
    this.#columns = columns;
  }

  write(text: string): void {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what terminals are told with
    for (const part of text.match(/\x1b\[\??\d*[A-Za-z]|[^\x1b]/gu) ?? []) {
      if (part === '\n') this.#feed();
      else if (part.startsWith('\x1b')) this.#control(part.slice(2));
      else this.#print(part);
    }
  }

  #feed(): void {
    this.#column = 0;
    if (this.#at < this.lines.length - 1) this.#at++;
    else {
      this.lines.shift();
      this.lines.push('');
    }
  }

  #print(character: string): void {
    if (this.#column === this.#columns) {
      if (this.#wraps) this.#feed();
      else this.#column--;
    }
    this.lines[this.#at] = (this.lines[this.#at] ?? '').slice(0, this.#column) + character;
    this.#column++;
  }

  #control(code: string): void {
    if (code.endsWith('A')) this.#at = Math.max(0, this.#at - Number(code.slice(0, -1)));
    else if (code === '2K') this.lines[this.#at] = '';
    else if (code === 'J') this.lines.fill('', this.#at);
    else if (code === '?7l') this.#wraps = false;
    else if (code === '?7h') this.#wraps = true;
    else throw new Error(`a terminal is not told ${code}`);
  }
}

test('a line says what a node waits for, what is before it, and why it failed', () => {
  const rows = [
    row('a', State.SUCCEEDED),
    row('b', State.WAITING, { waitingReason: 'for a signal', after: ['a'] }),
    row('c', State.FAILED, { tries: 2, error: { message: 'no\u001b[2J\nat all' } as never, after: ['a'] }),
    row('c.x', State.CANCELLED, { depth: 1 }),
    row('d', undefined, { after: ['b', 'c'] }),
  ];
  expect(progressLines(rows, WIDE)).toEqual([
    '✔ a  run',
    '◌ b  run; after a; waits for a signal',
    '✘ c  run; after a; try 2; no at all',
    '■   c.x  run',
    '· d  run; after b, c',
  ]);
});

test('of many nodes those are drawn that run, failed, wait or are still to come; the others are counted', () => {
  const lines = progressLines(many(100, 90), WIDE);
  expect(lines).toHaveLength(23);
  expect(lines).toContain('▶ n90  run');
  expect(lines.at(-1)).toBe('… and 78 more: 78 succeeded');
  const rows = [row('a', State.SUCCEEDED), row('b', State.SKIPPED), row('c', State.TIMED_OUT), row('d'), row('e')];
  expect(progressLines(rows, { rows: 4, columns: 80 })).toEqual([
    '⧖ c  run',
    '· d  run',
    '… and 3 more: 1 pending, 1 succeeded, 1 skipped',
  ]);
  expect(progressLines(rows, { rows: 1, columns: 80 })).toEqual([
    '… and 5 more: 2 pending, 1 succeeded, 1 timed out, 1 skipped',
  ]);
});

test('a line that is too long is cut', () => {
  const long = row('a', State.FAILED, { error: { message: 'x'.repeat(100) } as never });
  expect(progressLines([long], { rows: 24, columns: 20 })).toEqual([`✘ a  run; ${'x'.repeat(9)}…`]);
});

test.each([
  { rows: 24, columns: 80 },
  { rows: 6, columns: 12 },
  { rows: 2, columns: 3 },
])('frames are drawn over each other on a terminal of $rows × $columns, however many nodes there are', (size) => {
  const screen = new Screen(size);
  screen.write('$ harrier\n');
  let drawn = 0;
  let frame: Row[] = [];
  // More nodes with each frame, and fewer again.
  for (const count of [1, 3, 20, 23, 24, 50, 100, 100, 4]) {
    frame = many(count, count - 1);
    const next = drawProgress(frame, drawn, size);
    drawn = next.drawn;
    screen.write(next.text);
    const lines = progressLines(frame, size);
    const shown = screen.lines.findLastIndex((line) => line !== '') + 1;
    expect(screen.lines.slice(Math.max(0, shown - lines.length), shown)).toEqual(lines);
    const above = screen.lines.slice(0, Math.max(0, shown - lines.length));
    expect(
      above.filter((line) => line !== '$ harrier'),
      'nothing of the frames before',
    ).toEqual([]);
  }
});

test('a terminal that became smaller is drawn on as far as it goes', () => {
  const { text } = drawProgress(many(5, 1), 23, { rows: 10, columns: 80 });
  expect(text.startsWith('\x1b[9A')).toBe(true);
});
