import { mkdirSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { standInTool } from '../test-support/stand-in-tool.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { findNodejs } from './nodejs-interpreters.ts';

/** A program that answers as Node.js of a version does, that lies there or elsewhere. */
function nodejs(directory: string, version: string, executable = join(directory, 'node')): string {
  standInTool(directory, 'node', `echo '["${version}","${executable}"]'`);
  return executable;
}

test('programs are found once each, in the order of the search path, and bound where the sandbox has them not', async () => {
  const [shims, alone] = [tempDir(), realpathSync(tempDir())];
  const installation = realpathSync(tempDir());
  mkdirSync(join(installation, 'bin'));
  mkdirSync(join(installation, 'lib', 'node_modules'), { recursive: true });
  const program = nodejs(join(installation, 'bin'), '24.1.0');
  nodejs(shims, '24.1.0', program);
  nodejs(alone, '22.6.0');
  const { found, refused } = await findNodejs(`${shims}:${join(installation, 'bin')}::/no/such:${alone}`);
  expect(refused).toEqual([]);
  expect(found).toEqual([
    {
      version: '24.1.0',
      program,
      path: '/opt/nodejs/bin/node',
      flags: [],
      binds: [{ source: installation, target: '/opt/nodejs', writable: false }],
    },
    {
      version: '22.6.0',
      program: join(alone, 'node'),
      path: '/opt/nodejs/bin/node',
      flags: ['--experimental-detect-module'],
      binds: [{ source: join(alone, 'node'), target: '/opt/nodejs/bin/node', writable: false }],
    },
  ]);
});

test('what is too old or no Node.js is refused with the reason', async () => {
  const [old, broken] = [tempDir(), tempDir()];
  nodejs(old, '20.9.0');
  standInTool(broken, 'node', 'echo "no version is set" >&2; exit 126');
  const { found, refused } = await findNodejs(`${old}:${broken}`);
  expect(found).toEqual([]);
  expect(refused).toEqual([
    `${old}/node is 20.9.0, and 20.10 is the oldest`,
    `${broken}/node does not answer: no version is set`,
  ]);
});
