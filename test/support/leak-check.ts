import { globSync, lstatSync } from 'node:fs';
import { afterAll, expect } from 'vitest';
import { killProcessesWith, listProcesses, processesWith } from './processes.ts';
import { until } from './wait.ts';
import { removeWorkspace, temporaryLeftovers, WORKSPACE } from './workspace.ts';

/** Runs after everything else of the file: hooks that were added later come first. */
afterAll(async () => {
  let left: string[] = [];
  try {
    await until(
      'every process of the file to end',
      () => {
        const own = listProcesses().filter(({ parent }) => parent === process.pid);
        const all = [...own, ...processesWith(WORKSPACE)];
        left = [...new Set(all.map(({ pid, command }) => `${pid} ${command.slice(0, 300)}`))];
        return left.length === 0;
      },
      { deadlineMs: 30_000 },
    ).catch(() => undefined);
    expect(left, 'processes that the file left behind').toEqual([]);
    expect(temporaryLeftovers(), 'temporary files that were left behind').toEqual([]);
    expect(clustersElsewhere(), 'databases that are not in the data directory, and stay').toEqual([]);
    // A connection that was ended may still have a moment to go.
    await until('sockets to close', () => openSockets().length === 0, { deadlineMs: 30_000 }).catch(() => undefined);
    expect(openSockets(), 'sockets that the file left open').toEqual([]);
  } finally {
    killProcessesWith(WORKSPACE);
    removeWorkspace();
  }
});

/** The embedded PostgreSQL keeps its files elsewhere when its user cannot enter the data directory. */
function clustersElsewhere(): string[] {
  return globSync(`${WORKSPACE}/*/postgres`).filter((path) => lstatSync(path).isSymbolicLink());
}

function openSockets(): string[] {
  return process.getActiveResourcesInfo().filter((name) => /TCP|HTTP|TLS/.test(name));
}
