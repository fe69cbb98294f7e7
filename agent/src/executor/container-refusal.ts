import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { engineMessage, engineStatus, isConnectionError } from '../docker/engine.ts';
import { ImageError } from '../docker/images.ts';
import { LEASE_OVER, type Outcome } from './container-outcome.ts';
import type { DockerAttempt } from './docker-attempt.ts';
import type { StartRefusal } from './executor.ts';

const NOTHING_RAN = { exitCode: undefined, output: new Uint8Array(0) };
export const CANCELLED: Outcome = {
  ...NOTHING_RAN,
  outcome: 'cancelled',
  error: { code: Code.CANCELLED, message: 'cancelled before it ran' },
};

export function denied(message: string): StartRefusal {
  return { error: { code: Code.POLICY_DENIED, message }, requeue: false };
}

/** The end of an attempt whose container says nothing more. */
export function failed(code: Code, message: string): Outcome {
  return { ...NOTHING_RAN, outcome: 'failed', error: { code, message } };
}

/** How an attempt ends whose container was not started. */
export function neverRan({ ending, abort }: DockerAttempt, error: unknown): Outcome {
  if (ending === 'lease') return failed(Code.AGENT_LOST, LEASE_OVER);
  return abort.signal.aborted ? CANCELLED : refusal(error);
}

/** Why no container runs. */
function refusal(error: unknown): Outcome {
  if (error instanceof ImageError) {
    return failed(error.denied ? Code.POLICY_DENIED : Code.ENVIRONMENT_FAILED, error.message);
  }
  const why = `the container cannot be started: ${engineMessage(error)}`;
  // The engine has answered, and would answer the same again.
  if (engineStatus(error) !== undefined) return failed(Code.ENVIRONMENT_FAILED, why);
  return failed(isConnectionError(error) ? Code.SUBMIT_FAILED : Code.INTERNAL, why);
}
