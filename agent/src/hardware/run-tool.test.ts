import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { standInTool } from '../test-support/stand-in-tool.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { runTool } from './run-tool.ts';

test('the output of a tool is answered', async () => {
  const tool = standInTool(tempDir(), 'tool', 'echo "$1"');
  expect(await runTool(tool, ['hi'], 10_000)).toBe('hi\n');
});

test('a tool that fails or is missing answers nothing', async () => {
  const directory = tempDir();
  expect(await runTool(standInTool(directory, 'tool', 'echo half; exit 1'), [], 10_000)).toBeUndefined();
  expect(await runTool(join(directory, 'missing'), [], 10_000)).toBeUndefined();
});

test('a tool that hangs is killed with what it started', async () => {
  const directory = tempDir();
  const pidFile = join(directory, 'pid');
  const tool = standInTool(
    directory,
    'tool',
    `sleep 1000 & echo $! > ${pidFile}.new; mv ${pidFile}.new ${pidFile}; wait`,
  );
  // Long enough for it to have started something, whatever else this machine does.
  for (let limitMs = 500; !existsSync(pidFile); limitMs *= 2) {
    expect(await runTool(tool, [], limitMs)).toBeUndefined();
  }
  const pid = Number(readFileSync(pidFile, 'utf8'));
  await vi.waitFor(() => expect(isRunning(pid)).toBe(false));
});

test('a tool that does not stop talking is killed', async () => {
  expect(await runTool(standInTool(tempDir(), 'tool', 'yes'), [], 10_000)).toBeUndefined();
});

/** A process that was killed may wait for init to collect it. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
