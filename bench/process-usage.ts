import { readFileSync } from 'node:fs';
import { processTree } from '../test/support/processes.ts';

const MIB = 1024 * 1024;
/** Of the kernel; 100 on every Linux that Node runs on. */
const TICKS_A_SECOND = 100;

/** Resident memory of a process, in MiB. */
export function residentMib(pid: number): number {
  const kib = Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
  return (kib * 1024) / MIB;
}

/** Memory of processes that share pages, each page counted once: proportional set sizes, in MiB. */
export function proportionalMib(pids: readonly number[]): number {
  let kib = 0;
  for (const pid of pids) kib += Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1]);
  return (kib * 1024) / MIB;
}

/** Share of one core that processes and their descendants use over a while, in per cent. */
export async function cpuPercent(roots: readonly number[], seconds: number): Promise<number> {
  const before = cpuTicks(roots);
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  return ((cpuTicks(roots) - before) / TICKS_A_SECOND / seconds) * 100;
}

function cpuTicks(roots: readonly number[]): number {
  const pids = new Set(roots.flatMap((root) => processTree(root).map(({ pid }) => pid)));
  let ticks = 0;
  for (const pid of pids) {
    try {
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
      ticks += Number(fields[11]) + Number(fields[12]);
    } catch {
      // It has just ended.
    }
  }
  return ticks;
}
