import { existsSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
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

test('the agent takes what no job has, for good', async () => {
  const { directory } = job();
  expect(await directory.take()).toBe('agent');
  expect(await directory.taken()).toBe('agent');
  expect(await directory.take()).toBe('agent');
  expect(() => writeFileSync(join(directory.path, 'taken'), '', { flag: 'wx' })).toThrow('EEXIST');
});

test.each([
  ['{"job":"12","node":"n1"}', { job: '12', node: 'n1' }],
  ['', { job: '', node: 'a node that it has not told' }],
])('the agent does not take what a job has that has written %j', async (text, taken) => {
  const { directory } = job();
  writeFileSync(join(directory.path, 'taken'), text);
  expect(await directory.take()).toEqual({ ...taken, startedAgain: false });
});

test('of an attempt without files there is nothing to take, unless the directory of all jobs is away', async () => {
  const { all, directory } = job();
  rmSync(directory.path, { recursive: true });
  expect(await directory.take()).toBe('agent');
  rmSync(all, { recursive: true });
  await expect(directory.take()).rejects.toThrow('the directory of all jobs is away: ENOENT');
  writeFileSync(all, '');
  await expect(directory.take()).rejects.toThrow('ENOTDIR');
});

test.each(['a directory', 'a file', 'nothing'])('a link to %s takes nothing, and is not followed', async (what) => {
  const { directory } = job();
  const target = join(tempDir(), 'target');
  if (what === 'a directory') mkdirSync(target);
  if (what === 'a file') writeFileSync(target, '{"job":"12","node":"n1"}');
  symlinkSync(target, join(directory.path, 'taken'));
  await expect(directory.taken()).rejects.toThrow('ELOOP');
  await expect(directory.take()).rejects.toThrow('ELOOP');
  expect(existsSync(target)).toBe(what !== 'nothing');
});

test('an attempt is taken for as long as there is something to run', async () => {
  const { directory } = job();
  await directory.take();
  // Not a file: it cannot be removed as one.
  mkdirSync(join(directory.path, 'start'));
  await expect(directory.remove()).rejects.toThrow();
  expect(readdirSync(directory.path)).toEqual(['start', 'taken']);
  rmSync(join(directory.path, 'start'), { recursive: true });
  await directory.remove();
  expect(existsSync(directory.path)).toBe(false);
});
