import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { tempDir } from '../test-support/temp-dir.ts';
import { networksProbe } from './networks.ts';

test('interfaces are told with their speed, those of containers and the loopback are not', async () => {
  const directory = tempDir();
  const make = (name: string, files: Record<string, string>) => {
    mkdirSync(join(directory, name));
    for (const [file, text] of Object.entries(files)) writeFileSync(join(directory, name, file), `${text}\n`);
  };
  make('ens1f0', { speed: '100000', operstate: 'up' });
  make('ens1f1', { speed: '-1', operstate: 'down' });
  make('lo', { operstate: 'unknown' });
  make('veth12ab', { speed: '10000', operstate: 'up' });
  make('docker0', { operstate: 'down' });
  expect(await networksProbe(directory).read()).toEqual({
    networks: [
      { name: 'ens1f0', bitsPerSecond: 100_000_000_000n, up: true, addresses: [] },
      { name: 'ens1f1', bitsPerSecond: 0n, up: false, addresses: [] },
    ],
  });
});
