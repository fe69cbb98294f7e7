import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { tempDir } from '../test-support/temp-dir.ts';
import { LogFile } from './log-file.ts';

const line = (number: number) => `{"line":${number},"filling":"${'x'.repeat(1000)}"}\n`;

function linesOf(directory: string, names: string[]): number[] {
  return names.flatMap((name) =>
    readFileSync(join(directory, name), 'utf8')
      .split('\n')
      .filter((text) => text !== '')
      .map((text) => (JSON.parse(text) as { line: number }).line),
  );
}

test('lines go into the file, and a full file is followed by a new one; the oldest of so many goes', async () => {
  const directory = tempDir();
  const failed = vi.fn();
  const written = 200;
  for (let start = 0; start < written; start += 20) {
    // As an agent that is started again and again.
    const file = new LogFile({ path: join(directory, 'agent.log'), maxBytes: 65_536, files: 3 }, failed);
    for (let i = start; i < start + 20; i++) file.write(line(i));
    await file.close();
  }
  const names = ['agent.log.2', 'agent.log.1', 'agent.log'];
  expect(readdirSync(directory).sort()).toEqual(names.toSorted());
  const kept = linesOf(directory, names);
  expect(kept).toEqual(Array.from({ length: kept.length }, (_, i) => written - kept.length + i));
  expect(failed).not.toHaveBeenCalled();
});

test('a file that cannot be written is told of once, and holds up nobody', async () => {
  const directory = tempDir();
  const path = join(directory, 'not-a-directory', 'agent.log');
  writeFileSync(join(directory, 'not-a-directory'), '');
  const failed = vi.fn();
  const file = new LogFile({ path, maxBytes: 65_536, files: 3 }, failed);
  file.write(line(1));
  await vi.waitFor(() => expect(failed).toHaveBeenCalledTimes(1));
  file.write(line(2));
  await file.close();
  expect(failed).toHaveBeenCalledTimes(1);
});

test('the directory is made where it is missing', async () => {
  const directory = join(tempDir(), 'log');
  const file = new LogFile({ path: join(directory, 'agent.log'), maxBytes: 65_536, files: 1 }, () => {});
  file.write(line(1));
  await file.close();
  expect(linesOf(directory, ['agent.log'])).toEqual([1]);
});
