import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { AttemptEnd, StartRefusal } from '../executor/executor.ts';
import type { HeldAttempt } from './held-attempt.ts';

// What the agent itself knows of an end, beyond what the keeper of an attempt tells.

/** Nothing of the attempt has run here: it goes back to the queue. */
export function tryElsewhere(message: string): StartRefusal {
  return { error: { code: Code.SUBMIT_FAILED, message }, requeue: true };
}

/** Nobody cancelled the execution: another agent may try it. */
function stopped(message: string): Pick<AttemptEnd, 'outcome' | 'error'> {
  return { outcome: 'failed', error: { code: Code.AGENT_LOST, message } };
}

/** @param told what the keeper knows: what the agent has stopped by itself was cancelled, for it */
export function knownEnd({ stopReason }: HeldAttempt, told: AttemptEnd): AttemptEnd {
  const wasStopped = told.outcome === 'cancelled' || told.error?.code === Code.AGENT_LOST;
  return stopReason !== undefined && wasStopped ? { ...told, ...stopped(stopReason) } : told;
}

export const OUTPUT_LOST = 'the control plane does not have output any more that it had stored, and nobody else has it';

/** What is told of an attempt whose result nobody has. */
export function lostEnd(held: HeldAttempt): AttemptEnd {
  const written = { stdout: held.storedStdoutBytes, stderr: held.storedStderrBytes };
  const message = held.hasBegun
    ? 'the attempt was lost with the launcher that ran it'
    : 'the attempt was lost with its launcher, and may have started';
  return endWithoutResult(message, written);
}

/** What is told of an attempt whose output is nowhere as a whole any more. */
export function outputLostEnd(held: HeldAttempt): AttemptEnd {
  return endWithoutResult(OUTPUT_LOST, held.reachedBytes);
}

function endWithoutResult(message: string, written: { stdout: number; stderr: number }): AttemptEnd {
  return {
    ...stopped(message),
    exitCode: undefined,
    output: new Uint8Array(0),
    runMs: 0,
    cpuMs: 0,
    maxRssBytes: 0,
    stdoutBytes: written.stdout,
    stderrBytes: written.stderr,
    stdoutTruncated: false,
    stderrTruncated: false,
  };
}
