import { readFile, statfs } from 'node:fs/promises';
import type { HardwareFacts, Probe } from './probe.ts';

/** File systems on the host's own disks. Others are memory, or may hang when their server is gone. */
const LOCAL = new Set(['ext2', 'ext3', 'ext4', 'xfs', 'btrfs', 'zfs', 'f2fs', 'bcachefs', 'overlay', 'apfs']);
const EVERY_MS = 10_000;

interface Mount {
  device: string;
  mount: string;
  fileSystem: string;
}

/** @param mountsPath in the form of /proc/self/mounts; where there is none only `/` is looked at */
export function disksProbe(mountsPath = '/proc/self/mounts'): Probe {
  return {
    everyMs: EVERY_MS,
    read: async () => {
      const text = await readFile(mountsPath, 'utf8').catch(() => undefined);
      const mounts = text === undefined ? [{ device: '', mount: '/', fileSystem: '' }] : localMounts(text);
      return { disks: (await Promise.all(mounts.map(readDisk))).filter((disk) => disk !== undefined) };
    },
  };
}

/** The local mounts of a mount table, each device once: bind mounts repeat it. */
export function localMounts(table: string): Mount[] {
  const byDevice = new Map<string, Mount>();
  for (const line of table.split('\n')) {
    const [device = '', mount = '', fileSystem = ''] = line.split(' ');
    if (!LOCAL.has(fileSystem) || (fileSystem === 'overlay' && mount !== '/')) continue;
    if (!byDevice.has(device)) byDevice.set(device, { device, mount: unescapeMount(mount), fileSystem });
  }
  return [...byDevice.values()];
}

/** The kernel writes blanks and backslashes in mount points as octal, for example `\040`. */
function unescapeMount(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

async function readDisk({
  mount,
  fileSystem,
}: Mount): Promise<NonNullable<HardwareFacts['disks']>[number] | undefined> {
  try {
    const { bsize, blocks, bavail } = await statfs(mount, { bigint: true });
    return { mount, fileSystem, sizeBytes: bsize * blocks, availableBytes: bsize * bavail };
  } catch {
    return undefined;
  }
}
