import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { tempDir } from '../test-support/temp-dir.ts';
import { AttemptFiles } from './attempt-files.ts';

const LIMITS = { stdout: { bytes: 10, marked: false }, stderr: { bytes: 5, marked: true } };

function open(directory: string): AttemptFiles {
  const files = AttemptFiles.open(directory, LIMITS);
  onTestFinished(() => files.close());
  return files;
}

test('bytes and facts are there after the process was started again', () => {
  const directory = join(tempDir(), 'e1.1');
  const first = open(directory);
  first.append('stdout', Buffer.from('hello'));
  first.keep('facts.json', { a: 1 });
  first.note('seen.json', { b: 2 });
  first.close();
  const second = open(directory);
  second.append('stdout', Buffer.from(' you'));
  expect(second.read('stdout', 2, 100).toString()).toBe('llo you');
  expect(second.read('stdout', 0, 3).toString()).toBe('hel');
  expect(second.read('stdout', 9, 100).length).toBe(0);
  const kept = ['facts.json', 'seen.json', 'other.json'].map((name) => second.kept(name));
  expect(kept).toEqual([{ a: 1 }, { b: 2 }, undefined]);
});

test('a log that is cut off says so, once; a result that is cut off is known to be', () => {
  const directory = join(tempDir(), 'e1.1');
  const first = open(directory);
  first.append('stderr', Buffer.from('123'));
  first.append('stderr', Buffer.from('456'));
  first.append('stdout', Buffer.from('0123456789a'));
  first.close();
  const second = open(directory);
  for (const stream of ['stdout', 'stderr'] as const) {
    expect(second.truncated(stream)).toBe(true);
    second.append(stream, Buffer.from('more'));
  }
  expect(second.read('stderr', 0, 1000).toString()).toBe('12345\n[harrier: stderr truncated after 5 bytes]\n');
  expect(second.read('stdout', 0, 1000).toString()).toBe('0123456789');
});

test('a stream that just fills its limit is whole', () => {
  const files = open(join(tempDir(), 'e1.1'));
  files.append('stderr', Buffer.from('12345'));
  expect(files.truncated('stderr')).toBe(false);
  expect(files.length('stderr')).toBe(5);
});
