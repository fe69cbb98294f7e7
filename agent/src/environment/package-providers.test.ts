import { join } from 'node:path';
import { expect, test } from 'vitest';
import { PrivateRuns } from '../launcher/private-runs.ts';
import { connectLauncher } from '../test-support/real-launcher.ts';
import { silentLogger } from '../test-support/silent-logger.ts';
import { openTempDir, tempDir } from '../test-support/temp-dir.ts';
import { buildBounds } from './build-runs.ts';
import { createPackageProviders } from './package-providers.ts';

async function create(dataDir: string, directory?: string) {
  // Nothing is run.
  const { launcher } = connectLauncher(dataDir);
  return await createPackageProviders({
    settings: {
      ...{ directory, maxBytes: undefined, minFreeBytes: 0 },
      ...{ allowedIndexes: [], allowExtraIndex: false, indexHosts: [], channels: [], allowedChannels: [] },
    },
    ...{ indexUrl: 'https://index.example/simple', dataDir, searchPath: '/usr/bin' },
    ...{
      runs: new PrivateRuns(() => launcher),
      bounds: buildBounds(Number.POSITIVE_INFINITY),
      retire: () => undefined,
      python: () => undefined,
    },
    ...{ unavailable: () => undefined, logger: silentLogger() },
  });
}

test('two agents do not share a directory of environments, one after the other may', async () => {
  const shared = openTempDir();
  const first = await create(tempDir(), shared);
  expect(first.providers.map(({ kind }) => kind)).toEqual(['venv', 'conda']);
  await expect(create(tempDir(), shared)).rejects.toThrow(`${shared} is in use by another agent`);
  await first.close();
  await (await create(tempDir(), shared)).close();
});

test.runIf(process.getuid?.() === 0)('a directory that the sandbox cannot enter is refused', async () => {
  const closed = tempDir();
  const directory = join(closed, 'environments');
  await expect(create(tempDir(), directory)).rejects.toThrow(
    `HARRIER_AGENT_ENVIRONMENTS_DIR: the user of the sandboxes (70621) cannot enter ${directory}`,
  );
});
