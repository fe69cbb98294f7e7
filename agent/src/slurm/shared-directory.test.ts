import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { tempDir } from '../test-support/temp-dir.ts';
import { SharedDirectory } from './shared-directory.ts';

/** A data directory in which the agent's name is that text. */
function dataDirWith(name: string): string {
  const directory = tempDir();
  mkdirSync(join(directory, 'slurm'));
  writeFileSync(join(directory, 'slurm', 'name'), name);
  return directory;
}

test('an agent has the same directory after each start, and no other agent has it', () => {
  const root = tempDir();
  const dataDir = tempDir();
  const first = new SharedDirectory(root, dataDir).lease;
  expect(new SharedDirectory(root, dataDir).lease).toBe(first);
  expect(new SharedDirectory(root, tempDir()).lease).not.toBe(first);
  expect(readdirSync(join(dataDir, 'slurm'))).toEqual(['name']);
});

test.each([
  ['an empty one, which a full disk has left', ''],
  ['the beginning of one', '0192d1f0-0000-7000'],
  ['a way out of its directory', '../0192d1f0-0000-7000-8000-000000000001'],
])('a name that is none is refused, and left for the operator to see: %s', (_, name) => {
  const dataDir = dataDirWith(name);
  expect(() => new SharedDirectory(tempDir(), dataDir)).toThrow(
    `${join(dataDir, 'slurm', 'name')} holds ${JSON.stringify(name)} instead of the agent's UUID`,
  );
  expect(readFileSync(join(dataDir, 'slurm', 'name'), 'utf8')).toBe(name);
});

test('what an agent that died has not finished writing is no name', () => {
  const dataDir = tempDir();
  mkdirSync(join(dataDir, 'slurm'));
  writeFileSync(join(dataDir, 'slurm', 'name.new'), '0192');
  const { lease } = new SharedDirectory(tempDir(), dataDir);
  const name = readFileSync(join(dataDir, 'slurm', 'name'), 'utf8').trim();
  expect(lease).toContain(`/agents/${name}/`);
  expect(existsSync(join(dataDir, 'slurm', 'name.new'))).toBe(false);
});

test('where the jobs of an agent should be, it makes no new directory', async () => {
  const root = tempDir();
  const dataDir = tempDir();
  await expect(new SharedDirectory(root, dataDir).open(true)).rejects.toThrow('is the file system mounted?');
  expect(readdirSync(root)).toEqual([]);
  await new SharedDirectory(root, dataDir).open(false);
  await expect(new SharedDirectory(root, dataDir).open(true)).resolves.toBeUndefined();
});

test('an attempt is not put into a place from which the file system has gone', async () => {
  const root = tempDir();
  const shared = new SharedDirectory(root, tempDir());
  const settings = { flags: [], lease: shared.lease, time_ms: 0, gpu_dev_root: '/dev' };
  await expect(shared.job('e.1').create([], settings, shared.runtime)).rejects.toThrow('ENOENT');
  expect(readdirSync(root)).toEqual([]);
});

test('what no job may start is no longer taken only when there is nothing to run', async () => {
  const shared = new SharedDirectory(tempDir(), tempDir());
  await shared.open(false);
  const { path } = shared.job('e.1');
  // Not a file: it cannot be removed as one.
  mkdirSync(join(path, 'start'), { recursive: true });
  mkdirSync(join(path, 'taken'));
  await expect(shared.removeOthers(() => false)).rejects.toThrow();
  expect(readdirSync(path)).toEqual(['start', 'taken']);
  rmSync(join(path, 'start'), { recursive: true });
  await shared.removeOthers(() => false);
  expect(existsSync(path)).toBe(false);
});
