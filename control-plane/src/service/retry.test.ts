import { create } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { RetryPolicySchema } from '@harrier/shared/gen/module';
import fc from 'fast-check';
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

  test('whatever the policy, waits are within it, tries end, and who is retried does not depend on when', () => {
    const codes = fc.constantFrom(...Object.values(Code).filter((code) => typeof code === 'number'));
    const given = fc.record({
      maxAttempts: fc.integer({ min: 0, max: 20 }),
      initialMs: fc.integer({ min: 1, max: 5_000 }),
      maxMs: fc.integer({ min: 1, max: 60_000 }),
      multiplier: fc.double({ min: 1, max: 10, noNaN: true }),
      jitterRatio: fc.double({ min: 0, max: 1, noNaN: true }),
      retried: fc.uniqueArray(codes),
      code: codes,
      random: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
    });
    fc.assert(
      fc.property(given, ({ maxAttempts, initialMs, maxMs, multiplier, jitterRatio, retried, code, random }) => {
        const duration = (ms: number) => ({ seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1_000_000 });
        const chosen = policy({
          maxAttempts,
          initialBackoff: duration(initialMs),
          maxBackoff: duration(maxMs),
          backoffMultiplier: multiplier,
          jitterRatio,
          codes: retried,
        });
        const tries = maxAttempts || 3;
        const waits = Array.from({ length: tries }, (_, i) => retryDelayMs(chosen, code, i + 1, () => random));
        expect(waits.at(-1)).toBeUndefined();
        const before = waits.slice(0, -1);
        expect(new Set(before.map((wait) => wait === undefined)).size).toBeLessThanOrEqual(1);
        for (const wait of before) {
          if (wait === undefined) continue;
          expect(wait).toBeGreaterThanOrEqual(0);
          expect(wait).toBeLessThanOrEqual(maxMs);
        }
        const never: readonly Code[] = [Code.CANCELLED, Code.POLICY_DENIED, Code.INPUT_INVALID, Code.NO_ELIGIBLE_AGENT];
        if (never.includes(code)) {
          expect(before.every((wait) => wait === undefined)).toBe(true);
        }
      }),
    );
  });
});
