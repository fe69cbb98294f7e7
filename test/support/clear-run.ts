import { globSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { leaveDockerEngine } from './docker-engine.ts';
import { killProcessesWith } from './processes.ts';

/** A file that fails while it is loaded runs no hooks: what it has started ends with the run. */
export function setup(): () => Promise<void> {
  const run = String(process.pid);
  process.env.HARRIER_TEST_RUN = run;
  return async () => {
    killProcessesWith(`${tmpdir()}/hte-${run}-`);
    for (const left of globSync(`${tmpdir()}/hte-${run}-*`)) rmSync(left, { recursive: true, force: true });
    await leaveDockerEngine(run);
  };
}
