import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { tempDir } from '../test-support/temp-dir.ts';
import { JobDirectory } from './job-directory.ts';

/** The directory of a job in that of all jobs. */
function job(): { all: string; directory: JobDirectory } {
  const all = join(tempDir(), 'jobs');
  const path = join(all, 'e.1');
  mkdirSync(path, { recursive: true });
  return { all, directory: new JobDirectory(path) };
}

test('a job that has not taken its attempt is told from one that cannot be looked at', async () => {
  const { all, directory } = job();
  expect(await directory.taken()).toBeUndefined();
  rmSync(all, { recursive: true });
  await expect(directory.taken()).rejects.toThrow('the directory of all jobs is away: ENOENT');
  await expect(directory.read(0)).rejects.toThrow('the directory of all jobs is away: ENOENT');
  writeFileSync(all, '');
  await expect(directory.taken()).rejects.toThrow('ENOTDIR');
});

test('a job whose files are gone has left nothing more', async () => {
  const { directory } = job();
  rmSync(directory.path, { recursive: true });
  expect(await directory.read(5)).toEqual({ records: [], next: 5 });
});

test('an error other than that there is no file is no answer', async () => {
  const { directory } = job();
  symlinkSync('taken', join(directory.path, 'taken'));
  await expect(directory.taken()).rejects.toThrow('ELOOP');
});

test.each([
  ['{"job":"12","node":"n1"}', { job: '12', node: 'n1' }],
  ['', { job: '', node: 'a node that it has not told' }],
  ['{"job":"1', { job: '', node: 'a node that it has not told' }],
  ['null', { job: '', node: 'a node that it has not told' }],
  ['{"job":"12; rm","node":7}', { job: '', node: 'a node that it has not told' }],
])('an attempt is taken by a job that has written %j', async (text, taken) => {
  const { directory } = job();
  writeFileSync(join(directory.path, 'taken'), text);
  expect(await directory.taken()).toEqual({ ...taken, startedAgain: false });
  writeFileSync(join(directory.path, 'again'), '');
  expect(await directory.taken()).toEqual({ ...taken, startedAgain: true });
});
