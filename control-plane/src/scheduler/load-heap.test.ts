import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Candidate } from '../agent-link/candidate.ts';
import { isLessLoaded, type LoadEntry, LoadHeap } from './load-heap.ts';

const AGENTS = 40;
const agent: Candidate = {
  id: 'agent',
  name: 'agent',
  tenantId: 't',
  labels: {},
  environments: new Set(),
  unavailableEnvironments: {},
  slots: 1,
  active: 0,
  draining: false,
};

test('whatever comes, goes and changes, the first is the least loaded, and so is each when those before it are gone', () => {
  const step = fc.record({
    place: fc.nat(AGENTS - 1),
    /** Undefined: it goes. */
    load: fc.option(fc.nat(20), { nil: undefined }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 400, size: 'max' }), (steps) => {
      const heap = new LoadHeap();
      const entries = Array.from({ length: AGENTS }, (_, sequence): LoadEntry => {
        return { agent, load: 0, sequence, position: -1 };
      });
      const within = new Set<LoadEntry>();
      for (const { place, load } of steps) {
        const entry = entries[place] as LoadEntry;
        if (load === undefined) {
          heap.remove(entry);
          within.delete(entry);
        } else {
          entry.load = load;
          heap.put(entry);
          within.add(entry);
        }
        expect(heap.size).toBe(within.size);
      }
      for (const entry of [...within].toSorted((a, b) => (isLessLoaded(a, b) ? -1 : 1))) {
        expect(heap.first()).toBe(entry);
        heap.remove(entry);
      }
      expect(heap.first()).toBeUndefined();
    }),
    { numRuns: 500 },
  );
});
