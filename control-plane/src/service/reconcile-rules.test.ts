import { Execution_State as State } from '@harrier/shared/gen/execution';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { reconcileAttempts } from './reconcile-rules.ts';

const name = fc.record({ executionId: fc.constantFrom('a', 'b', 'c', 'd'), attempt: fc.integer({ min: 1, max: 3 }) });
/** An execution has one current attempt. */
const active = fc.uniqueArray(name, { selector: ({ executionId }) => executionId }).map((names) =>
  names.map(({ executionId, attempt }, i) => ({
    id: executionId,
    attempt,
    state: i % 2 === 0 ? State.ASSIGNED : State.RUNNING,
    assigned_ms: 60_000,
    reservation: null,
  })),
);

/** Another process, beside a launcher of which nothing is known. */
const FORMER = { sameProcess: false, launcherAgeMs: undefined };

describe('reconcileAttempts', () => {
  test('decides each attempt once: what is wanted goes on only where it is held, what is held stays only where it is wanted', () => {
    fc.assert(
      fc.property(active, fc.array(name, { maxLength: 12 }), fc.boolean(), (rows, held, sameProcess) => {
        const { resume, again, lost, drop } = reconcileAttempts(rows, held, { sameProcess, launcherAgeMs: undefined });
        expect([...resume, ...again, ...lost].toSorted(byId)).toEqual(rows.toSorted(byId));
        const heldKeys = new Set(held.map(({ executionId, attempt }) => `${executionId} ${attempt}`));
        const toldKeys = [...resume.map(({ id, attempt }) => `${id} ${attempt}`), ...drop.map(keyOf)];
        expect(toldKeys.toSorted()).toEqual([...heldKeys].toSorted());
        const started = ({ state }: { state: State }) => state === State.RUNNING;
        expect(again.filter((row) => !sameProcess || started(row))).toEqual([]);
        expect(lost.filter((row) => sameProcess && !started(row))).toEqual([]);
      }),
    );
  });

  test('whatever process it is, what it holds of what is wanted goes on, so that a restart loses nothing', () => {
    fc.assert(
      fc.property(active, fc.boolean(), (rows, sameProcess) => {
        const held = rows.map(({ id, attempt }) => ({ executionId: id, attempt }));
        expect(reconcileAttempts(rows, held, { sameProcess, launcherAgeMs: undefined })).toEqual({
          resume: rows,
          again: [],
          lost: [],
          drop: [],
        });
      }),
    );
  });

  test.each([
    ['was being prepared by an agent whose launcher has run since before', {}, 70_000, 'again'],
    ['may have been given to a former launcher', {}, 61_000, 'lost'],
    ['was given to a launcher of which nothing is known', {}, undefined, 'lost'],
    ['was running, and would be held', { state: State.RUNNING }, 70_000, 'lost'],
    ['may be a job of Slurm that nobody remembers', { reservation: { slurm_jobs: 1 } }, 70_000, 'lost'],
  ] as const)('of another process of the agent, what %s: %s', (_, fields, launcherAgeMs, becomes) => {
    const row = { id: 'a', attempt: 1, state: State.PREPARING, assigned_ms: 60_000, reservation: null, ...fields };
    const result = reconcileAttempts([row], [], { sameProcess: false, launcherAgeMs });
    expect(result).toEqual({ resume: [], again: [], lost: [], drop: [], [becomes]: [row] });
  });

  test('an older attempt is dropped, and the current one is not taken for held because of it', () => {
    const row = { id: 'a', attempt: 2, state: State.ASSIGNED, assigned_ms: 60_000, reservation: null };
    expect(reconcileAttempts([row], [{ executionId: 'a', attempt: 1 }], FORMER)).toEqual({
      resume: [],
      again: [],
      lost: [row],
      drop: [{ executionId: 'a', attempt: 1 }],
    });
  });
});

function byId(a: { id: string }, b: { id: string }): number {
  return a.id < b.id ? -1 : 1;
}

function keyOf({ executionId, attempt }: { executionId: string; attempt: number }): string {
  return `${executionId} ${attempt}`;
}
