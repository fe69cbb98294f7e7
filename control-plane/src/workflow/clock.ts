import type { Draft } from './draft.ts';
import type { Instance } from './run-state.ts';

/** Whose time has come: `deadline`, it may not take longer; `timer`, it has waited for long enough. */
export interface Due {
  path: string;
  what: 'deadline' | 'timer';
}

/** Begins a try, or the run. @param timeoutMs undefined: it may take as long as it takes */
export function startClock(instance: Instance, timeoutMs: number | undefined, nowMs: number): void {
  instance.startMs ??= nowMs;
  instance.endMs = undefined;
  instance.error = undefined;
  instance.deadlineMs = timeoutMs === undefined ? undefined : nowMs + timeoutMs;
}

/**
 * Whose time has come, an instance before those within it, of which none is named where it is due itself. The draft is read
 * as one goes: what is done about one may end others before their turn.
 */
export function* dueWithin(draft: Draft, path: string, nowMs: number): Iterable<Due> {
  const instance = draft.read(path);
  if (instance === undefined || instance.phase === 'none') return;
  if (isDue(deadlineOf(instance), nowMs)) {
    yield { path, what: 'deadline' };
    return;
  }
  if (isDue(instance.dueMs, nowMs)) {
    yield { path, what: 'timer' };
    return;
  }
  for (const child of [...draft.openChildren(path)]) yield* dueWithin(draft, child.path, nowMs);
}

/** When time does something to an instance, if nothing else does before; undefined: never. */
export function nextDueMs(instance: Instance): number | undefined {
  if (instance.phase === 'none') return undefined;
  const deadlineMs = deadlineOf(instance);
  if (instance.dueMs === undefined || deadlineMs === undefined) return instance.dueMs ?? deadlineMs;
  return Math.min(instance.dueMs, deadlineMs);
}

/**
 * One that is being stopped, and one that has ended and only decides, cannot take too long any more; one that has failed can, if
 * something in it cleans up.
 */
function deadlineOf({ deadlineMs, stopping, phase }: Instance): number | undefined {
  return (stopping === undefined || stopping === 'FAILED') && phase !== 'decide' ? deadlineMs : undefined;
}

export function isDue(ms: number | undefined, nowMs: number): boolean {
  return ms !== undefined && ms <= nowMs;
}
