import { spawnSync } from 'node:child_process';
import { globSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { leaveDockerEngines } from './docker-engine.ts';
import { clearDeadHosts } from './host-group.ts';
import { killProcessesWith } from './processes.ts';

/** A file that fails while it is loaded runs no hooks: what it has started ends with the run. */
export function setup(): () => Promise<void> {
  const run = String(process.pid);
  process.env.HARRIER_TEST_RUN = run;
  return async () => {
    // One that fails keeps none of the others from being tried.
    try {
      await clearDeadHosts();
    } finally {
      try {
        clearWorkspaces(`${tmpdir()}/hte-${run}-`);
      } finally {
        await leaveDockerEngines(run);
      }
    }
  };
}

/** @param prefix of the paths of their directories */
function clearWorkspaces(prefix: string): void {
  killProcessesWith(prefix);
  for (const line of readFileSync('/proc/self/mounts', 'utf8').split('\n')) {
    const point = line.split(' ')[1];
    if (point?.startsWith(prefix)) spawnSync('umount', ['--lazy', point]);
  }
  for (const left of globSync(`${prefix}*`)) rmSync(left, { recursive: true, force: true });
}
