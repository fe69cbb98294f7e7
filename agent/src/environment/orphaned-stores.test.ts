import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { lockDirectory } from '@harrier/shared';
import { expect, test } from 'vitest';
import { silentLogger } from '../test-support/silent-logger.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { claimStore, removeOrphanedStores, storeOf } from './orphaned-stores.ts';

/** A store of an agent with this data directory. */
async function claimed(system: string, dataDir: string): Promise<string> {
  const store = storeOf(dataDir, system);
  mkdirSync(join(store, 'acme'), { recursive: true });
  await claimStore(store, dataDir);
  return store;
}

function newDirectory(...path: [string, ...string[]]): string {
  const directory = join(...path);
  mkdirSync(directory, { recursive: true });
  return directory;
}

test('the store of an agent whose data directory is gone is removed, and no other', async () => {
  const [system, work] = [tempDir(), tempDir()];
  const there = await claimed(system, newDirectory(work, 'there'));
  await claimed(system, newDirectory(work, 'gone'));
  await claimed(system, newDirectory(work, 'parent', 'gone'));
  const inUse = await claimed(system, newDirectory(work, 'in-use'));
  const lock = lockDirectory(inUse, { holder: 'agent', mode: 0o711 });
  const unnamed = newDirectory(system, 'environments-0123456789abcdef');
  // It says that it is another's.
  const wrong = newDirectory(system, 'environments-aaaaaaaaaaaaaaaa');
  writeFileSync(join(wrong, 'owner.json'), JSON.stringify({ dataDir: join(work, 'gone'), device: 0 }));
  // Its data directory was on a file system that is not mounted now.
  const unmounted = await claimed(system, newDirectory(work, 'mnt'));
  const owner = JSON.parse(readFileSync(join(unmounted, 'owner.json'), 'utf8'));
  writeFileSync(join(unmounted, 'owner.json'), JSON.stringify({ ...owner, device: owner.device + 1 }));
  newDirectory(system, 'cluster-0123456789abcdef');
  for (const name of ['gone', 'parent', 'in-use', 'mnt']) rmSync(join(work, name), { recursive: true });
  await removeOrphanedStores(system, silentLogger());
  const left = [...[there, inUse, unnamed, wrong, unmounted].map((one) => basename(one)), 'cluster-0123456789abcdef'];
  expect(readdirSync(system).toSorted()).toEqual(left.toSorted());
  lock.release();
  await removeOrphanedStores(system, silentLogger());
  expect(readdirSync(system)).not.toContain(basename(inUse));
});
