import { defineConfig } from 'vitest/config';
import { toolsPath } from './scripts/lib/setup.mjs';
import { DEADLINE_MS } from './test/support/wait.ts';

/** Longer than any wait of the tests' own helpers, whose message says what did not come. */
const TIMEOUT_MS = 300_000;

/**
 * Files that go on at the same time, on any machine. They wait as long as they compute: on two cores three keep both busy,
 * and with more each gets too little.
 */
const WORKERS = 3;

/** Those that advance a run and need neither a database nor an agent: what is left is tried by the real processes. */
const ENGINE = 'control-plane/src/workflow';
const NOT_PURE = ['run-actor', 'workflow-runner', 'pinned-graph'];

export default defineConfig({
  test: {
    // Measured where it is asked for, as `npm test` does.
    coverage: {
      provider: 'v8',
      include: [`${ENGINE}/*.ts`],
      exclude: ['**/*.test.ts', ...NOT_PURE.map((name) => `${ENGINE}/${name}.ts`)],
      reporter: ['text'],
      // With other seeds random runs do not reach the very same branches: what is measured is two points more.
      thresholds: { lines: 95, branches: 95 },
    },
    projects: [
      {
        test: {
          name: 'unit',
          include: ['{shared,control-plane,agent,cli}/src/**/*.test.ts', '{scripts,deploy}/**/*.test.ts'],
          setupFiles: ['test/support/patient-waits.ts', 'test/support/seeded-properties.ts'],
          expect: { poll: { timeout: DEADLINE_MS } },
          maxWorkers: WORKERS,
          testTimeout: TIMEOUT_MS,
          hookTimeout: TIMEOUT_MS,
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['test/**/*.test.ts'],
          env: { PATH: toolsPath() },
          globalSetup: ['test/support/clear-run.ts'],
          setupFiles: ['test/support/leak-check.ts', 'test/support/seeded-properties.ts'],
          pool: 'forks',
          maxWorkers: WORKERS,
          testTimeout: TIMEOUT_MS,
          hookTimeout: TIMEOUT_MS,
        },
      },
    ],
  },
});
