import { stripVTControlCharacters } from 'node:util';
import { isTerminal, paint, printable } from './terminal.ts';

/**
 * Rows as text: on a terminal aligned below a heading, else one row a line with its cells parted by tabs and no heading,
 * for cut(1) and awk(1).
 */
export function formatTable(
  heading: readonly string[],
  rows: readonly (readonly string[])[],
  terminal: boolean = isTerminal(),
): string {
  if (!terminal) return rows.map((row) => `${row.map(flat).join('\t')}\n`).join('');
  const widths = heading.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => widthOf(row[column] ?? ''))),
  );
  const lines = [heading.map((title) => paint('dim', title)), ...rows].map((row) =>
    row
      .map((cell, column) => cell + ' '.repeat(Math.max(0, (widths[column] ?? 0) - widthOf(cell))))
      .join('  ')
      .trimEnd(),
  );
  return `${lines.join('\n')}\n`;
}

/** Names and values below each other; rows without a value are left out. */
export function formatFields(fields: readonly (readonly [string, string])[], terminal?: boolean): string {
  const shown = fields.filter(([, value]) => value !== '');
  if (!(terminal ?? isTerminal())) return shown.map(([name, value]) => `${name}\t${flat(value)}\n`).join('');
  const width = Math.max(0, ...shown.map(([name]) => name.length));
  return shown.map(([name, value]) => `${paint('dim', name.padEnd(width))}  ${value}\n`).join('');
}

function flat(cell: string): string {
  return printable(cell).replaceAll(/[\t\n]+/g, ' ');
}

function widthOf(cell: string): number {
  return stripVTControlCharacters(cell).length;
}
