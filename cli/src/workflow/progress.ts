import { WorkflowRunNode_State as State } from '@harrier/shared/gen/workflow';
import { paint, printable, type Style } from '../output/terminal.ts';
import type { Row } from './outline.ts';

/** Of a terminal. */
export interface Size {
  rows: number;
  columns: number;
}

const UNKNOWN: readonly [mark: string, style: Style] = ['?', 'gray'];
const MARKS: Readonly<Record<number, readonly [mark: string, style: Style]>> = {
  [State.PENDING]: ['·', 'gray'],
  [State.WAITING]: ['◌', 'yellow'],
  [State.RUNNING]: ['▶', 'cyan'],
  [State.SUCCEEDED]: ['✔', 'green'],
  [State.FAILED]: ['✘', 'red'],
  [State.TIMED_OUT]: ['⧖', 'red'],
  [State.CANCELLED]: ['■', 'yellow'],
  [State.SKIPPED]: ['↷', 'gray'],
};
/** What is drawn first where there is no room for all. */
const BY_IMPORTANCE = [
  [State.RUNNING],
  [State.FAILED, State.TIMED_OUT],
  [State.WAITING],
  [State.PENDING],
  [State.SUCCEEDED, State.CANCELLED, State.SKIPPED, State.STATE_UNSPECIFIED],
] as const;
/**
 * DECAWM: whether what is longer than a line goes on in the next one. Off while lines are drawn: a character may be wider than it
 * counts, and a line that takes two moves all that is above it.
 * https://vt100.net/docs/vt510-rm/DECAWM.html
 */
const WRAP_OFF = '\x1b[?7l';
const WRAP_ON = '\x1b[?7h';

/**
 * The text that draws the nodes of a run over what was drawn before. It leaves the cursor below, and takes no more than the
 * terminal has: what has left it at its top cannot be drawn again.
 * @param drawn lines that are there. @returns also the lines that are there then
 */
export function drawProgress(rows: readonly Row[], drawn: number, size: Size): { text: string; drawn: number } {
  const lines = progressLines(rows, size);
  const up = Math.min(drawn, heightOf(size));
  const text = `${up > 0 ? `\x1b[${up}A` : ''}${WRAP_OFF}${lines.map((line) => `\x1b[2K${line}\n`).join('')}\x1b[J${WRAP_ON}`;
  return { text, drawn: lines.length };
}

/** What goes on and what failed first; what there is no room for is counted. */
export function progressLines(rows: readonly Row[], size: Size): string[] {
  const room = heightOf(size);
  if (rows.length <= room) return rows.map((row) => lineOf(row, size.columns));
  const shown = mostImportant(rows, room - 1);
  const lines = rows.filter((row) => shown.has(row)).map((row) => lineOf(row, size.columns));
  const left = rows.filter((row) => !shown.has(row));
  return [...lines, paint('gray', cut(`… and ${left.length} more: ${countsOf(left)}`, size.columns))];
}

/** The last line is the cursor's. */
function heightOf({ rows }: Size): number {
  return Math.max(1, rows - 1);
}

function mostImportant(rows: readonly Row[], count: number): Set<Row> {
  const byState = Map.groupBy(rows, stateOf);
  const shown = new Set<Row>();
  for (const states of BY_IMPORTANCE) {
    for (const state of states) {
      for (const row of byState.get(state) ?? []) {
        if (shown.size >= count) return shown;
        shown.add(row);
      }
    }
  }
  return shown;
}

function countsOf(rows: readonly Row[]): string {
  const counts = Map.groupBy(rows, stateOf);
  const names = Object.entries(State).flatMap(([name, state]) => {
    const count = counts.get(state)?.length ?? 0;
    return count === 0 ? [] : [`${count} ${name.toLowerCase().replace('_', ' ')}`];
  });
  return names.join(', ');
}

function stateOf({ node }: Row): State {
  return node?.state ?? State.PENDING;
}

function lineOf(row: Row, columns: number): string {
  const { path, depth, kind, after, node } = row;
  const [mark, style] = MARKS[stateOf(row)] ?? UNKNOWN;
  const notes = [
    kind,
    ...(after.length === 0 ? [] : [`after ${after.join(', ')}`]),
    ...(node === undefined || node.tries < 2 ? [] : [`try ${node.tries}`]),
    ...(node === undefined || node.waitingReason === '' ? [] : [`waits ${node.waitingReason}`]),
    ...(node?.error === undefined ? [] : [node.error.message]),
  ];
  const name = `${'  '.repeat(depth)}${printable(path)}`;
  const text = cut(`${mark} ${name}  ${printable(notes.join('; ')).replace(/\s+/g, ' ')}`, columns);
  // Colours take no room, and are put around what is left.
  const end = mark.length + 1 + name.length;
  return `${paint(style, mark)}${text.slice(mark.length, end)}${text.length > end ? paint('gray', text.slice(end)) : ''}`;
}

/** To what a line has room for. */
function cut(text: string, columns: number): string {
  return text.length <= columns ? text : `${text.slice(0, Math.max(0, columns - 1)).toWellFormed()}…`;
}
