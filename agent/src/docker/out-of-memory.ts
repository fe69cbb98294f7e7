import { constants } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import type { ContainerUsage } from './container-groups.ts';
import { memoryBound } from './container-policy.ts';
import type { ContainerExit, ContainerRun } from './container-run.ts';

const SIGKILLED = 128 + constants.signals.SIGKILL;
/** The engine hears of it on another way than of the end, and may lose it when the container's groups are gone by then. */
const TOLD_LATE_MS = 50;
const TOLD_LATE_TIMES = 20;
/** The kernel takes memory in larger pieces than it gives out, so that the peak stays somewhat below a limit that was hit. */
const SLACK_BYTES = 1 << 20;

/**
 * Whether the kernel has killed a process of an ended container because its memory was used up, by all that can tell: the
 * engine, also when it says so late; the container's own groups; and its peak, for one that nobody else has killed.
 */
export async function wasOutOfMemory(
  run: ContainerRun,
  exit: ContainerExit,
  usage: ContainerUsage,
  memoryBytes: number,
): Promise<boolean> {
  if (exit.oomKilled || usage.oomKills > 0) return true;
  if (exit.exitCode !== SIGKILLED) return false;
  if (usage.maxMemoryBytes >= memoryBound(memoryBytes) - SLACK_BYTES) return true;
  for (let times = 0; times < TOLD_LATE_TIMES; times++) {
    await delay(TOLD_LATE_MS);
    if ((await run.exit()).oomKilled) return true;
  }
  return false;
}
