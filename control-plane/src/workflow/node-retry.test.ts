import { create } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { RetryPolicySchema } from '@harrier/shared/gen/module';
import { expect, test } from 'vitest';
import { nodeBackoffMs } from './node-retry.ts';

const seconds = (value: number) => ({ seconds: BigInt(Math.trunc(value)), nanos: (value % 1) * 1e9 });

test('a policy that says nothing is three tries, a second apart and then two, with a jitter of a fifth', () => {
  const policy = create(RetryPolicySchema);
  const waits = [1, 2, 3].map((tries) => nodeBackoffMs(policy, Code.HANDLER_ERROR, tries, 0));
  expect(waits).toEqual([1_000, 2_000, undefined]);
  expect(nodeBackoffMs(policy, Code.HANDLER_ERROR, 1, 0.5)).toBe(900);
});

test('a policy says how often, how long and for what', () => {
  const policy = create(RetryPolicySchema, {
    maxAttempts: 9,
    initialBackoff: seconds(0.5),
    maxBackoff: seconds(3),
    backoffMultiplier: 3,
    jitterRatio: 0,
    codes: [Code.TIMEOUT, Code.INPUT_INVALID],
  });
  const waits = [1, 2, 3, 4].map((tries) => nodeBackoffMs(policy, Code.TIMEOUT, tries, 0.9));
  expect(waits).toEqual([500, 1_500, 3_000, 3_000]);
  expect(nodeBackoffMs(policy, Code.HANDLER_ERROR, 1, 0)).toBeUndefined();
  // Whatever the policy says: another try would end the same way.
  expect(nodeBackoffMs(policy, Code.INPUT_INVALID, 1, 0)).toBeUndefined();
});
