import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { tempDir } from '../test-support/temp-dir.ts';
import { disksProbe, localMounts } from './disks.ts';

const TABLE = [
  'proc /proc proc rw 0 0',
  '/dev/vda1 / ext4 rw 0 0',
  '/dev/vda1 /bind ext4 rw 0 0',
  '/dev/vdb /mnt/with\\040blank xfs rw 0 0',
  'server:/export /home nfs4 rw 0 0',
  'overlay /var/lib/docker/overlay2/x/merged overlay rw 0 0',
  'tmpfs /tmp tmpfs rw 0 0',
  '',
].join('\n');

test('disks are the local file systems, each once', () => {
  expect(localMounts(TABLE).map(({ mount, fileSystem }) => [mount, fileSystem])).toEqual([
    ['/', 'ext4'],
    ['/mnt/with blank', 'xfs'],
  ]);
});

test('a mount that is gone is left out, the others have their sizes', async () => {
  const directory = tempDir();
  const mounts = join(directory, 'mounts');
  writeFileSync(mounts, `/dev/a ${directory} ext4 rw 0 0\n/dev/b ${directory}/gone ext4 rw 0 0\n`);
  const { disks } = await disksProbe(mounts).read();
  expect(disks).toMatchObject([{ mount: directory, fileSystem: 'ext4' }]);
  expect(disks?.[0]?.sizeBytes).toBeGreaterThan(0n);
});

test('a host without a mount table has its root', async () => {
  const { disks } = await disksProbe('/does/not/exist').read();
  expect(disks).toMatchObject([{ mount: '/' }]);
});
