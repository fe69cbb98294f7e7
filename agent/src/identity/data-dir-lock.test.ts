import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { tempDir } from '../test-support/temp-dir.ts';
import { lockDataDir } from './data-dir-lock.ts';

const MODULE = fileURLToPath(new URL('./data-dir-lock.ts', import.meta.url));

test('a data directory belongs to one agent at a time', () => {
  const directory = join(tempDir(), 'made', 'here');
  const lock = lockDataDir(directory);
  expect(statSync(directory).mode & 0o777).toBe(0o700);
  expect(() => lockDataDir(directory)).toThrow(`${directory} is in use by another agent (process ${process.pid})`);
  lock.release();
  lockDataDir(directory).release();
});

test('of another process too, until that is killed', async () => {
  const directory = tempDir();
  const script = `import { lockDataDir } from ${JSON.stringify(MODULE)};
    globalThis.lock = lockDataDir(${JSON.stringify(directory)});
    process.stdout.write('locked');
    setInterval(() => {}, 1000);`;
  const holder = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(() => void holder.kill('SIGKILL'));
  await once(holder.stdout, 'data');
  expect(() => lockDataDir(directory)).toThrow(`in use by another agent (process ${holder.pid})`);
  holder.kill('SIGKILL');
  await once(holder, 'exit');
  lockDataDir(directory).release();
});

test('what cannot be a data directory is named', () => {
  const file = join(tempDir(), 'file');
  writeFileSync(file, '');
  expect(() => lockDataDir(file)).toThrow(`the data directory ${file} cannot be used`);
});
