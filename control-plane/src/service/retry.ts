import { cappedExponentialMs } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { RetryPolicy } from '@harrier/shared/gen/module';
import { millisecondsOf } from './duration.ts';

/** `transient`: retried by default. `on-request`: when the policy names it. `never`: another try cannot change it, or must not. */
type Retry = 'transient' | 'on-request' | 'never';

/** The one table of what is retried. */
const RETRIES: Readonly<Record<keyof typeof Code, Retry>> = {
  CODE_UNSPECIFIED: 'never',
  INPUT_INVALID: 'never',
  OUTPUT_INVALID: 'on-request',
  OUTPUT_TOO_LARGE: 'on-request',
  HANDLER_NOT_FOUND: 'on-request',
  HANDLER_ERROR: 'on-request',
  EXIT_NONZERO: 'on-request',
  TIMEOUT: 'on-request',
  CANCELLED: 'never',
  OUT_OF_MEMORY: 'on-request',
  KILLED: 'on-request',
  ENVIRONMENT_FAILED: 'on-request',
  POLICY_DENIED: 'never',
  ARTIFACT_FAILED: 'transient',
  AGENT_LOST: 'transient',
  NO_ELIGIBLE_AGENT: 'never',
  QUOTA_EXCEEDED: 'on-request',
  SUBMIT_FAILED: 'transient',
  INTERNAL: 'transient',
};

const BY_CODE = new Map<Code, Retry>(
  Object.entries(RETRIES).map(([name, retry]) => [Code[name as keyof typeof Code], retry]),
);

const DEFAULT_MAX_ATTEMPTS = 3;
const DEFAULT_INITIAL_BACKOFF_MS = 1_000;
const DEFAULT_MAX_BACKOFF_MS = 60_000;
const DEFAULT_MULTIPLIER = 2;
const DEFAULT_JITTER_RATIO = 0.2;

/**
 * The wait before the next attempt in milliseconds; undefined when there is to be none.
 * @param failures attempts that failed, this one included.
 */
export function retryDelayMs(
  policy: RetryPolicy | undefined,
  code: Code,
  failures: number,
  random: () => number = Math.random,
): number | undefined {
  if (failures >= (policy?.maxAttempts || DEFAULT_MAX_ATTEMPTS) || !isRetried(policy, code)) return undefined;
  const wait = cappedExponentialMs(failures - 1, {
    initialMs:
      policy?.initialBackoff === undefined ? DEFAULT_INITIAL_BACKOFF_MS : millisecondsOf(policy.initialBackoff),
    maxMs: policy?.maxBackoff === undefined ? DEFAULT_MAX_BACKOFF_MS : millisecondsOf(policy.maxBackoff),
    multiplier: policy?.backoffMultiplier || DEFAULT_MULTIPLIER,
  });
  const jitter = policy?.jitterRatio ?? DEFAULT_JITTER_RATIO;
  return wait * (1 - jitter * random());
}

function isRetried(policy: RetryPolicy | undefined, code: Code): boolean {
  const retry = BY_CODE.get(code) ?? 'never';
  if (retry === 'never') return false;
  return policy === undefined || policy.codes.length === 0 ? retry === 'transient' : policy.codes.includes(code);
}
