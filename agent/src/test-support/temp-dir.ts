import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

/** A directory that is gone after the test. Short, so that a unix socket's path fits. */
export function tempDir(): string {
  const directory = mkdtempSync(join(tmpdir(), 'harrier-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** As `tempDir`, for what the sandbox's user has to reach too. */
export function openTempDir(): string {
  const directory = tempDir();
  chmodSync(directory, 0o711);
  return directory;
}
