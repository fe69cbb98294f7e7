import { spawnSync } from 'node:child_process';
import type { Need } from './faults/fault.ts';
import { Clock } from './world/clock.ts';

const HAS: Readonly<Record<Need, () => boolean>> = {
  root: () => process.getuid?.() === 0,
  docker: () => process.getuid?.() === 0 && ['dockerd', 'debootstrap'].every(isOnPath),
  clock: () => Clock.library() !== undefined,
};

/** Needs that this host does not meet. */
export function missingOf(needs: readonly Need[] = []): Need[] {
  return needs.filter((need) => !HAS[need]());
}

function isOnPath(program: string): boolean {
  return spawnSync('which', [program]).status === 0;
}
