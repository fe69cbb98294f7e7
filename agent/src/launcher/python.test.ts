import { chmodSync, writeFileSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { expect, test } from 'vitest';
import { tempDir } from '../test-support/temp-dir.ts';
import { resolvePython } from './python.ts';

test('the interpreter behind a name or shim is found', async () => {
  const { path, version } = await resolvePython('python3');
  expect(isAbsolute(path)).toBe(true);
  expect(version).toMatch(/^3\.\d+\.\d+$/);
  expect(await resolvePython(path)).toEqual({ path, version });
});

test('one that is too old is refused', async () => {
  const old = join(tempDir(), 'python');
  writeFileSync(old, '#!/bin/sh\necho /usr/bin/python3.6\necho 3.6.9\n');
  chmodSync(old, 0o755);
  await expect(resolvePython(old)).rejects.toThrow(`Python 3.9 or newer is needed; "${old}" is 3.6.9`);
});

test('one that is missing is named with its setting', async () => {
  await expect(resolvePython('/no/python')).rejects.toThrow('"/no/python" (HARRIER_AGENT_PYTHON)');
});
