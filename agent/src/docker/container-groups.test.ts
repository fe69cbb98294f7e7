import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { tempDir } from '../test-support/temp-dir.ts';
import { readContainerGroups } from './container-groups.ts';

const ID = 'd7df8447238d';

/** Control groups as files. */
function groups(files: Record<string, string>): string {
  const root = tempDir();
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), text);
  }
  return root;
}

test.each([
  [
    'version 2, by the driver of systemd',
    {
      [`system.slice/docker-${ID}.scope/cpu.stat`]: 'usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n',
      [`system.slice/docker-${ID}.scope/memory.peak`]: '4096\n',
      [`system.slice/docker-${ID}.scope/memory.events`]: 'low 0\noom 7\noom_kill 1\noom_group_kill 0\n',
    },
  ],
  [
    'version 2 without a peak',
    {
      [`docker/${ID}/cpu.stat`]: 'usage_usec 1500\n',
      [`docker/${ID}/memory.current`]: '4096\n',
      [`docker/${ID}/memory.events`]: 'oom 7\noom_kill 1\n',
    },
  ],
  [
    'version 1',
    {
      [`cpuacct/docker/${ID}/cpuacct.usage`]: '1500000\n',
      [`memory/docker/${ID}/memory.max_usage_in_bytes`]: '4096\n',
      [`memory/docker/${ID}/memory.oom_control`]: 'oom_kill_disable 0\nunder_oom 0\noom_kill 1\n',
    },
  ],
])('what a container has used is read from control groups of %s', (_, files) => {
  expect(readContainerGroups(ID, groups(files))).toEqual({ cpuMs: 1.5, maxMemoryBytes: 4096, oomKills: 1 });
});

test('groups that are not there, or are just being removed, tell nothing', () => {
  expect(readContainerGroups(ID, tempDir())).toBeUndefined();
  expect(readContainerGroups(ID, groups({ [`docker/${ID}/cpu.stat`]: 'usage_usec 1\n' }))).toBeUndefined();
});
