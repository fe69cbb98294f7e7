import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { lockDirectory } from './directory-lock.ts';

const MODULE = fileURLToPath(new URL('./directory-lock.ts', import.meta.url));

const AGENT = { holder: 'agent', mode: 0o700 };

function tempDir(): string {
  const directory = mkdtempSync(join(tmpdir(), 'harrier-lock-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  return directory;
}

test('a data directory belongs to one process at a time', () => {
  const directory = join(tempDir(), 'made', 'here');
  const lock = lockDirectory(directory, AGENT);
  expect(statSync(directory).mode & 0o777).toBe(0o700);
  expect(() => lockDirectory(directory, AGENT)).toThrow(
    `${directory} is in use by another agent (process ${process.pid})`,
  );
  lock.release();
  lockDirectory(directory, AGENT).release();
});

test('of another process too, until that is killed', async () => {
  const directory = tempDir();
  const script = `import { lockDirectory } from ${JSON.stringify(MODULE)};
    globalThis.lock = lockDirectory(${JSON.stringify(directory)}, { holder: 'agent', mode: 0o700 });
    process.stdout.write('locked');
    setInterval(() => {}, 1000);`;
  const holder = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(() => void holder.kill('SIGKILL'));
  await once(holder.stdout, 'data');
  expect(() => lockDirectory(directory, AGENT)).toThrow(`in use by another agent (process ${holder.pid})`);
  holder.kill('SIGKILL');
  await once(holder, 'exit');
  lockDirectory(directory, AGENT).release();
});

test('what cannot be a data directory is named', () => {
  const file = join(tempDir(), 'file');
  writeFileSync(file, '');
  expect(() => lockDirectory(file, AGENT)).toThrow(`the data directory ${file} cannot be used`);
});
