import type { Requirement } from '../scheduler/place.ts';
import type { TrackedExecution } from './tracked-execution.ts';

/** Tells why no agent takes an execution: `Scheduler.explain`. */
export type Explain = (requirement: Requirement) => string;

/** Why an execution waits whose next attempt is due at a time to come; undefined when it is not. */
export function dueReason(nextAttemptTime: Date | undefined): string | undefined {
  if (nextAttemptTime === undefined || nextAttemptTime.getTime() <= Date.now()) return undefined;
  return `the next attempt is due at ${nextAttemptTime.toISOString()}`;
}

/** Why an execution that waits does so, for people. */
export function waitingReasonOf({ nextAttemptTime, resolved }: TrackedExecution, explain: Explain): string {
  return dueReason(nextAttemptTime) ?? explain(resolved.requirement);
}
