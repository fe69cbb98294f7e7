import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Kind, makePlan } from '../../faults/plan.ts';

const KINDS: readonly Kind[] = ['inline', 'command', 'venv', 'docker', 'container'];
const FAULTS = ['agent-kill', 'replica-kill', 'partition-long', 'drain'];

const options = fc.record({
  seed: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
  executions: fc.integer({ min: 1, max: 300 }),
  faults: fc.uniqueArray(fc.constantFrom(...FAULTS), { minLength: 1 }),
  kinds: fc.uniqueArray(fc.constantFrom(...KINDS), { minLength: 1 }),
});

test('a seed decides everything: the same plan again, another one for another seed', () => {
  fc.assert(
    fc.property(options, (given) => {
      expect(makePlan(given)).toEqual(makePlan(given));
    }),
  );
  const given = { executions: 100, faults: FAULTS, kinds: KINDS };
  expect(makePlan({ ...given, seed: 1 })).not.toEqual(makePlan({ ...given, seed: 2 }));
});

test('a plan has as many executions as were asked for, each with a key of its own, of the kinds that there are', () => {
  fc.assert(
    fc.property(options, (given) => {
      const executions = makePlan(given).flatMap((round) => round.executions);
      expect(executions).toHaveLength(given.executions);
      expect(new Set(executions.map(({ key }) => key)).size).toBe(given.executions);
      for (const { kind } of executions) expect(given.kinds).toContain(kind);
    }),
  );
});

test('every fault has its turn as often as any other, or once more', () => {
  fc.assert(
    fc.property(options, (given) => {
      const rounds = makePlan(given);
      const turns = given.faults.map((name) => rounds.filter(({ fault }) => fault === name).length);
      expect(Math.max(...turns) - Math.min(...turns)).toBeLessThanOrEqual(1);
      if (given.executions >= given.faults.length) expect(Math.min(...turns)).toBeGreaterThan(0);
    }),
  );
});

test('what is expected to fail by itself may be tried again', () => {
  fc.assert(
    fc.property(options, (given) => {
      for (const { failures, retries } of makePlan(given).flatMap((round) => round.executions)) {
        expect(failures === 0 || retries).toBe(true);
      }
    }),
  );
});
