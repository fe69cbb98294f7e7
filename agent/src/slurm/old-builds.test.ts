import { mkdirSync, readdirSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import { tempDir } from '../test-support/temp-dir.ts';
import { removeOldBuilds } from './old-builds.ts';

const DAY_S = 24 * 60 * 60;
let root = '';

/** Days have passed since something was changed. */
function age(path: string, days: number): void {
  const time = Date.now() / 1000 - days * DAY_S;
  utimesSync(path, time, time);
}

function build(name: string, days = 30): void {
  const path = join(root, 'runtime', name);
  mkdirSync(path, { recursive: true });
  writeFileSync(join(path, 'slurm_job.py'), '');
  age(path, days);
}

/** An agent that was last heard of some days ago, with a job that runs in each of the builds. */
function agent(id: string, uses: string | undefined, days: number, jobs: readonly string[] = []): void {
  const path = join(root, 'agents', id);
  mkdirSync(join(path, 'jobs'), { recursive: true });
  for (const [name, text] of Object.entries({ build: uses, 'lease.json': '{}' })) {
    if (text === undefined) continue;
    writeFileSync(join(path, name), text);
    age(join(path, name), days);
  }
  for (const name of jobs) {
    mkdirSync(join(path, 'jobs', `${name}.1`));
    symlinkSync(join(root, 'runtime', name), join(path, 'jobs', `${name}.1`, 'runtime'));
  }
}

beforeEach(() => {
  root = tempDir();
  for (const name of ['own', 'other', 'job', 'gone', 'old', 'old.1a2b']) build(name);
  build('fresh', 0.5);
  agent('me', 'own', 0);
  agent('another', 'other', 6, ['job']);
  agent('lost', 'gone', 8);
});

test('builds that neither agents nor jobs use are removed', async () => {
  expect((await removeOldBuilds(root, 'own')).toSorted()).toEqual(['gone', 'old', 'old.1a2b']);
  expect(readdirSync(join(root, 'runtime')).toSorted()).toEqual(['fresh', 'job', 'other', 'own']);
});

test('the jobs of an agent that is gone keep their build', async () => {
  agent('lost too', undefined, 30, ['old']);
  expect((await removeOldBuilds(root, 'own')).toSorted()).toEqual(['gone', 'old.1a2b']);
});

test('nothing is removed while one agent does not tell what it uses', async () => {
  agent('of an older version', undefined, 0);
  expect(await removeOldBuilds(root, 'own')).toEqual([]);
  expect(readdirSync(join(root, 'runtime'))).toHaveLength(7);
});
