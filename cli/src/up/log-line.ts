import { stderr } from 'node:process';
import { paint } from '../output/terminal.ts';

const LEVEL_STYLES: Readonly<Record<string, 'dim' | 'yellow' | 'red'>> = { warn: 'yellow', error: 'red', fatal: 'red' };
/** Told by the rest of the line, or of no use to a person. */
const HIDDEN = new Set(['level', 'time', 'msg', 'pid', 'name']);

/**
 * A line of a process's log for a person: `12:01:07 agent warn message key=value`. Any other text comes as it is.
 * @param process whose line it is
 */
export function formatLogLine(process: string, line: string): string {
  const entry = parseEntry(line);
  if (entry === undefined) return line;
  const { level, time, msg } = entry;
  const rest = Object.entries(entry).filter(([key]) => !HIDDEN.has(key));
  const fields = rest.map(([key, value]) => `${key}=${key === 'err' ? messageIn(value) : textOf(value)}`).join(' ');
  const head = `${String(time).slice(11, 19)} ${process}`;
  return [
    paint('dim', head, stderr),
    paint(LEVEL_STYLES[String(level)] ?? 'dim', String(level), stderr),
    String(msg ?? ''),
    paint('dim', fields, stderr),
  ]
    .filter((part) => part !== '')
    .join(' ');
}

function parseEntry(line: string): Record<string, unknown> | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    const value = JSON.parse(line) as Record<string, unknown>;
    return typeof value.level === 'string' ? value : undefined;
  } catch {
    return undefined;
  }
}

function messageIn(error: unknown): string {
  return textOf((error as { message?: unknown } | null)?.message ?? error);
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}
