import type { Requirement } from '../scheduler/requirement.ts';
import type { TrackedExecution } from './tracked-execution.ts';

/** Tells why no agent takes an execution. */
export type Explain = (requirement: Requirement, executionId: string) => Promise<string>;

/** Why an execution waits whose next attempt is due at a time to come; undefined when it is not. */
export function dueReason(nextAttemptTime: Date | undefined): string | undefined {
  if (nextAttemptTime === undefined || nextAttemptTime.getTime() <= Date.now()) return undefined;
  return `the next attempt is due at ${nextAttemptTime.toISOString()}`;
}

/** Why an execution that waits does so, for people. */
export async function waitingReasonOf(
  { nextAttemptTime, resolved }: TrackedExecution,
  explain: Explain,
): Promise<string> {
  return dueReason(nextAttemptTime) ?? (await explain(resolved.requirement, resolved.id));
}
