import type { TrackedExecution } from './tracked-execution.ts';

/** Resolves when the state, the progress or the log changes, or after a time. Rejects with the signal's reason. */
export async function nextChange(tracked: TrackedExecution, signal: AbortSignal, timeoutMs?: number): Promise<void> {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const waits = [tracked.changed.wait(either, timeoutMs)];
  if (tracked.log !== undefined) waits.push(tracked.log.changed.wait(either));
  try {
    await Promise.race(waits);
  } finally {
    stop.abort();
    for (const wait of waits) wait.catch(() => undefined);
  }
}
