import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const REPOSITORY = fileURLToPath(new URL('..', import.meta.url));
const read = (path: string): string => readFileSync(`${REPOSITORY}${path}`, 'utf8');
/** The table of promises: its rows, and of each its cells. */
const PROMISES = read('docs/guarantees.md')
  .split('\n')
  .filter((line) => line.startsWith('| ') && !line.startsWith('| promise '))
  .map((line) => line.split(' | ').map((cell) => cell.replace(/^\| | \|$/g, '')));
/** Texts in the font of code. */
const namesIn = (text: string): string[] => [...text.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name);

test.each(PROMISES)('is shown by tests and faults that there are: %s', (...cells) => {
  expect(cells).toHaveLength(3);
  const names = namesIn(cells[2] ?? '');
  const files = names.filter((name) => name.includes('/'));
  expect(files.length).toBeGreaterThan(0);
  expect(files.filter((file) => !existsSync(`${REPOSITORY}${file}`))).toEqual([]);
  const faults = new Set(namesIn(read('docs/faults.md').split('## The faults')[1]?.split('## ')[0] ?? ''));
  expect(names.filter((name) => !name.includes('/') && !faults.has(name))).toEqual([]);
});
