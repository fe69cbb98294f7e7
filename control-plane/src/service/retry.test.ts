import { create } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { RetryPolicySchema } from '@harrier/shared/gen/module';
import { describe, expect, test } from 'vitest';
import { retryDelayMs } from './retry.ts';

const policy = (init: Parameters<typeof create<typeof RetryPolicySchema>>[1]) => create(RetryPolicySchema, init);
const noJitter = () => 0;

describe('retryDelayMs', () => {
  test('transient errors are tried three times by default, others are not', () => {
    expect(retryDelayMs(undefined, Code.AGENT_LOST, 1, noJitter)).toBe(1000);
    expect(retryDelayMs(undefined, Code.AGENT_LOST, 2, noJitter)).toBe(2000);
    expect(retryDelayMs(undefined, Code.AGENT_LOST, 3, noJitter)).toBeUndefined();
    for (const code of [Code.HANDLER_ERROR, Code.TIMEOUT, Code.OUT_OF_MEMORY, Code.EXIT_NONZERO]) {
      expect(retryDelayMs(undefined, code, 1, noJitter)).toBeUndefined();
    }
  });

  test('a policy names what it retries; what can never be right again is not', () => {
    const given = policy({ maxAttempts: 5, codes: [Code.HANDLER_ERROR, Code.INPUT_INVALID, Code.CANCELLED] });
    expect(retryDelayMs(given, Code.HANDLER_ERROR, 4, noJitter)).toBe(8000);
    expect(retryDelayMs(given, Code.HANDLER_ERROR, 5, noJitter)).toBeUndefined();
    expect(retryDelayMs(given, Code.AGENT_LOST, 1, noJitter)).toBeUndefined();
    expect(retryDelayMs(given, Code.INPUT_INVALID, 1, noJitter)).toBeUndefined();
    expect(retryDelayMs(given, Code.CANCELLED, 1, noJitter)).toBeUndefined();
  });

  test('the wait grows to its limit, and jitter only shortens it', () => {
    const given = policy({
      maxAttempts: 100,
      initialBackoff: { seconds: 2n },
      maxBackoff: { seconds: 30n },
      backoffMultiplier: 3,
      jitterRatio: 0.5,
    });
    expect([1, 2, 3, 4].map((n) => retryDelayMs(given, Code.INTERNAL, n, noJitter))).toEqual([
      2000, 6000, 18000, 30000,
    ]);
    expect(retryDelayMs(given, Code.INTERNAL, 1, () => 1)).toBe(1000);
  });
});
