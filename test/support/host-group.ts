import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { listProcesses } from './processes.ts';
import { until } from './wait.ts';

/** Workspace of a test file and directory of the system in it, number and start of the process that the file is run by. */
const NAME = /^(hte-\d+-\w+)\.(\w+)\.(\d+)\.(\d+)$/;

/**
 * The control group of one booted system. systemd-nspawn puts what it boots into `payload` below the group that it is in itself: two
 * systems in one group take processes of each other for those of their own units.
 */
export class HostGroup {
  readonly #name: string;

  /** @param layers the directory of the file's workspace with all that the system has on the disk of this host */
  constructor(layers: string) {
    const self = listProcesses().find(({ pid }) => pid === process.pid);
    if (self === undefined) throw new Error('the process of this test is not in /proc');
    this.#name = [basename(dirname(layers)), basename(layers), self.pid, self.startTicks].join('.');
    mkdirSync(join(ownGroup(), this.#name));
  }

  /** What a command is started with to be in the group from its first moment, with the number of the process that was started. */
  get enter(): [string, ...string[]] {
    const members = join(ownGroup(), this.#name, 'cgroup.procs');
    return ['/bin/sh', '-c', 'echo $$ > "$0" && exec "$@"', members];
  }

  /** Kills what is left in it, and removes it. */
  async remove(): Promise<void> {
    await removeGroup(this.#name);
  }
}

/**
 * Removes all that is left of booted systems whose test files have ended without stopping them, however that was. Looks only below the
 * control group of this process: what a run in another group has left stays until a run in that group.
 */
export async function clearDeadHosts(): Promise<void> {
  const { version2 } = hierarchies();
  // Before the processes: whoever has made one of these is among them, if it lives.
  const names = version2 === undefined ? [] : readdirSync(version2);
  const living = new Set(listProcesses().map(({ pid, startTicks }) => `${pid}.${startTicks}`));
  for (const name of names) {
    const [, workspace = '', system = '', pid, startTicks] = NAME.exec(name) ?? [];
    if (pid === undefined || living.has(`${pid}.${startTicks}`)) continue;
    await removeGroup(name);
    const layers = join(tmpdir(), workspace, system);
    for (const point of mountsBelow(layers)) spawnSync('umount', ['--lazy', point]);
    rmSync(layers, { recursive: true, force: true });
  }
}

/** Another process may be doing the same. */
async function removeGroup(name: string): Promise<void> {
  const group = join(ownGroup(), name);
  unlessGone(() => writeFileSync(join(group, 'cgroup.kill'), '1'));
  const isEmpty = (): boolean =>
    unlessGone(() => readFileSync(join(group, 'cgroup.events'), 'utf8'))?.includes('populated 0') ?? true;
  await until(`the processes of the control group ${group} to end`, isEmpty);
  removeDirectories(group);
  const { named } = hierarchies();
  if (named !== undefined) removeDirectories(join(named, name));
}

/** The files in it belong to the kernel, and go with it. */
function removeDirectories(group: string): void {
  for (const entry of unlessGone(() => readdirSync(group, { withFileTypes: true })) ?? []) {
    if (entry.isDirectory()) removeDirectories(join(group, entry.name));
  }
  unlessGone(() => rmdirSync(group));
}

/** @throws Error where there are no groups of version 2 */
function ownGroup(): string {
  const { version2 } = hierarchies();
  if (version2 === undefined) throw new Error('there are no control groups of version 2 (mount -t cgroup2)');
  return version2;
}

/** This process's group of version 2, and, where version 1 is in use, the one of the same name in systemd's own hierarchy. */
function hierarchies(): { version2?: string; named?: string } {
  const own = /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1];
  if (own === undefined) return {};
  const version2 = mounts().find(({ type }) => type === 'cgroup2');
  const named = mounts().find(({ type, options }) => type === 'cgroup' && options.includes('name=systemd'));
  return {
    ...(version2 === undefined ? {} : { version2: join(version2.point, own) }),
    ...(named === undefined ? {} : { named: join(named.point, own) }),
  };
}

/** Those that others are mounted on come last. */
function mountsBelow(directory: string): string[] {
  return mounts()
    .map(({ point }) => point)
    .filter((point) => point.startsWith(`${directory}/`))
    .toReversed();
}

function mounts(): { point: string; type: string; options: string }[] {
  const lines = readFileSync('/proc/self/mounts', 'utf8').trimEnd().split('\n');
  return lines.map((line) => {
    const [, point = '', type = '', options = ''] = line.split(' ');
    return { point, type, options };
  });
}

/** What it answers; undefined where the file or directory is not there any more. */
function unlessGone<T>(act: () => T): T | undefined {
  try {
    return act();
  } catch (error) {
    // The kernel says ENODEV for an open file of a group that was removed.
    if (!['ENOENT', 'ENODEV'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    return undefined;
  }
}
