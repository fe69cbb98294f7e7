import { cappedExponentialMs } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import type { RetryPolicy } from '@harrier/shared/gen/module';

/** Another try would end as this one did. */
const NEVER: ReadonlySet<Code> = new Set([
  Code.INPUT_INVALID,
  Code.CANCELLED,
  Code.POLICY_DENIED,
  Code.NO_ELIGIBLE_AGENT,
]);
const DEFAULT_MAX_TRIES = 3;
const DEFAULT_INITIAL_MS = 1_000;
const DEFAULT_MAX_MS = 60_000;
const DEFAULT_MULTIPLIER = 2;
const DEFAULT_JITTER_RATIO = 0.2;

/**
 * The wait before the next try of a node in milliseconds; undefined when there is to be none. Unlike the policy of an execution,
 * that of a node without codes means every failure that another try may change: whoever writes it wants the node to succeed.
 * @param tries tries that failed, this one included
 * @param random from 0 to below 1
 */
export function nodeBackoffMs(policy: RetryPolicy, code: Code, tries: number, random: number): number | undefined {
  if (tries >= (policy.maxAttempts || DEFAULT_MAX_TRIES) || NEVER.has(code)) return undefined;
  if (policy.codes.length > 0 && !policy.codes.includes(code)) return undefined;
  const waitMs = cappedExponentialMs(tries - 1, {
    initialMs: policy.initialBackoff === undefined ? DEFAULT_INITIAL_MS : durationMs(policy.initialBackoff),
    maxMs: policy.maxBackoff === undefined ? DEFAULT_MAX_MS : durationMs(policy.maxBackoff),
    multiplier: policy.backoffMultiplier || DEFAULT_MULTIPLIER,
  });
  return Math.round(waitMs * (1 - (policy.jitterRatio ?? DEFAULT_JITTER_RATIO) * random));
}

function durationMs({ seconds, nanos }: { seconds: bigint; nanos: number }): number {
  return Number(seconds) * 1000 + nanos / 1e6;
}
