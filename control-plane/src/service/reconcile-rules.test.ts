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
  })),
);

describe('reconcileAttempts', () => {
  test('decides each attempt once: what is wanted goes on only where it is held, what is held stays only where it is wanted', () => {
    fc.assert(
      fc.property(active, fc.array(name, { maxLength: 12 }), fc.boolean(), (rows, held, sameProcess) => {
        const { resume, again, lost, drop } = reconcileAttempts(rows, held, sameProcess);
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
        expect(reconcileAttempts(rows, held, sameProcess)).toEqual({ resume: rows, again: [], lost: [], drop: [] });
      }),
    );
  });

  test('an older attempt is dropped, and the current one is not taken for held because of it', () => {
    const row = { id: 'a', attempt: 2, state: State.ASSIGNED };
    expect(reconcileAttempts([row], [{ executionId: 'a', attempt: 1 }], false)).toEqual({
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
