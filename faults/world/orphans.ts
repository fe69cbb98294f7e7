import { listProcesses, type ProcessInfo } from '../../test/support/processes.ts';

/** A host's agent as far as processes can belong to it. */
export interface Parent {
  dataDirectory: string;
  /** Of the agent itself; 0: it does not run. */
  pid: number;
}

/**
 * Processes of the world that no living agent or launcher answers for. A second launcher on the same data is one of them.
 * @param isOwn whether a process belongs to this world
 */
export function orphanProcesses(parents: readonly Parent[], isOwn: (pid: number) => boolean): string[] {
  const all = listProcesses();
  const children = Map.groupBy(all, ({ parent }) => parent);
  const answeredFor = new Set<number>();
  const answer = (root: ProcessInfo) => {
    answeredFor.add(root.pid);
    for (const child of children.get(root.pid) ?? []) answer(child);
  };
  for (const { dataDirectory, pid } of parents) {
    const launcher = all.find(({ command, parent }) => isLauncher(command, dataDirectory) && parent !== pid);
    const roots = [launcher, all.find((info) => info.pid === pid)];
    for (const root of roots) if (root !== undefined) answer(root);
  }
  return all
    .filter(({ pid }) => !answeredFor.has(pid) && isOwn(pid))
    .map(({ pid, parent, command }) => `process ${pid}, child of ${parent}: ${command.slice(0, 200)}`);
}

function isLauncher(command: string, dataDirectory: string): boolean {
  return command.includes('launcher.py') && command.includes(`${dataDirectory}/launcher.sock`);
}
