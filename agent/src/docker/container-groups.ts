import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** What a container has used so far, all of its processes together. */
export interface ContainerUsage {
  cpuMs: number;
  /** The most memory at once; files in `/tmp` count. */
  maxMemoryBytes: number;
  /** Processes that the kernel has killed for want of memory. */
  oomKills: number;
}

export const NO_USAGE: ContainerUsage = { cpuMs: 0, maxMemoryBytes: 0, oomKills: 0 };

const ROOT = '/sys/fs/cgroup';

/**
 * Reads the control groups of a container, where the engine has put them by default and this host shows them. They are
 * removed some milliseconds after its last process has ended.
 * @returns undefined when they are not there
 */
export function readContainerGroups(containerId: string, root: string = ROOT): ContainerUsage | undefined {
  // By the engine's own driver, and by systemd's.
  for (const group of [`docker/${containerId}`, `system.slice/docker-${containerId}.scope`]) {
    try {
      const unified = join(root, group);
      if (existsSync(unified)) return readUnified(unified);
      const [memory, cpu] = [join(root, 'memory', group), join(root, 'cpuacct', group)];
      if (existsSync(memory)) return readVersion1(memory, cpu);
    } catch {
      // Removed in this moment.
    }
  }
  return undefined;
}

function readUnified(group: string): ContainerUsage {
  const peak = join(group, 'memory.peak');
  return {
    cpuMs: member(join(group, 'cpu.stat'), 'usage_usec') / 1000,
    // Before Linux 5.19 there is no peak.
    maxMemoryBytes: number(existsSync(peak) ? peak : join(group, 'memory.current')),
    oomKills: member(join(group, 'memory.events'), 'oom_kill'),
  };
}

function readVersion1(memory: string, cpu: string): ContainerUsage {
  return {
    cpuMs: number(join(cpu, 'cpuacct.usage')) / 1e6,
    maxMemoryBytes: number(join(memory, 'memory.max_usage_in_bytes')),
    oomKills: member(join(memory, 'memory.oom_control'), 'oom_kill'),
  };
}

function number(path: string): number {
  return Number(readFileSync(path, 'utf8'));
}

/** A file of lines `name value`. */
function member(path: string, name: string): number {
  const line = readFileSync(path, 'utf8')
    .split('\n')
    .find((text) => text.startsWith(`${name} `));
  return line === undefined ? 0 : Number(line.slice(name.length + 1));
}
