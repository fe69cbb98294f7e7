import { defineConfig } from 'vitest/config';
import { toolsPath } from './scripts/lib/setup.mjs';

/** Longer than any wait of the tests' own helpers, whose message says what did not come. */
const TIMEOUT_MS = 120_000;

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['{shared,control-plane,agent,cli}/src/**/*.test.ts', 'scripts/**/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['test/**/*.test.ts'],
          env: { PATH: toolsPath() },
          globalSetup: ['test/support/clear-run.ts'],
          setupFiles: ['test/support/leak-check.ts'],
          pool: 'forks',
          // Each file has a control plane, a database and agents of its own: two at once would only share two cores.
          fileParallelism: false,
          testTimeout: TIMEOUT_MS,
          hookTimeout: TIMEOUT_MS,
        },
      },
    ],
  },
});
