import { join } from 'node:path';
import { expect, test } from 'vitest';
import { standInTool } from '../test-support/stand-in-tool.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { toolsProbe, versionIn } from './tools.ts';

test.each([
  ['bubblewrap 0.8.0', '0.8.0'],
  ['slurm-wlm 22.05.8', '22.05.8'],
  ['uv 0.9.7 (0adb44480 2025-10-30)', '0.9.7'],
  ['conda 25.9.1', '25.9.1'],
  ['20.10.24+dfsg1', '20.10.24+dfsg1'],
  ['2.3.3\n', '2.3.3'],
  ['Cannot connect to the Docker daemon', undefined],
])('the version in %j is %s', (text, version) => {
  expect(versionIn(text)).toBe(version);
});

test('tools that answer are listed with version and path, each interpreter once', async () => {
  const [real, shims] = [tempDir(), tempDir()];
  const python = 'echo 3.12.1; echo /opt/python/bin/python3.12';
  standInTool(shims, 'python3', python);
  standInTool(real, 'python3', 'echo 3.9.2; echo /usr/bin/python3.9');
  standInTool(real, 'python3.12', python);
  standInTool(real, 'python3-config', 'echo 9.9');
  standInTool(real, 'bwrap', 'echo bubblewrap 0.11.0');
  standInTool(real, 'docker', 'echo "Cannot connect" >&2; exit 1');
  const { tools } = await toolsProbe(`${shims}:${real}`).read();
  expect(tools).toEqual([
    { name: 'python', version: '3.12.1', path: '/opt/python/bin/python3.12' },
    { name: 'python', version: '3.9.2', path: '/usr/bin/python3.9' },
    { name: 'bubblewrap', version: '0.11.0', path: join(real, 'bwrap') },
  ]);
});
