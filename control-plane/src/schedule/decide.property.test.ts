import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decide, type OpenFiring, type Plan } from './decide.ts';
import { cronTimes, intervalTimes } from './times.ts';

const START = Date.parse('2026-03-28T22:00:00Z');

const anyPlan: fc.Arbitrary<Plan> = fc.record({
  id: fc.constantFrom('a', 'b', 'c'),
  times: fc.oneof(
    fc.integer({ min: 1_000, max: 120_000 }).map((everyMs) => intervalTimes(START, everyMs)),
    fc
      .constantFrom('*/7 * * * * *', '30 * * * * *', '*/20 * * * *', '15,45 1-3 * * *')
      .map((expression) => cronTimes(expression, 'Europe/Berlin')),
  ),
  jitterMs: fc.constantFrom(0, 500, 30_000, 86_400_000),
  misfire: fc.constantFrom('skip', 'once', 'all'),
  graceMs: fc.integer({ min: 1_000, max: 600_000 }),
  maxMissed: fc.integer({ min: 1, max: 200 }),
  overlap: fc.constantFrom('allow', 'skip', 'queue', 'cancel'),
  maxQueued: fc.integer({ min: 1, max: 5 }),
});

/** What happens between two looks: time passes, some of what runs ends, and the look may be lost before it is stored. */
const anyStep = fc.record({
  passMs: fc.oneof(fc.integer({ min: 0, max: 30_000 }), fc.integer({ min: 0, max: 4_000_000 })),
  ended: fc.array(fc.nat(10), { maxLength: 4 }),
  lost: fc.boolean(),
});

interface Row {
  state: 'pending' | 'queued' | 'started' | 'skipped' | 'ended';
  sinceMs: number | undefined;
  cancel: boolean;
}

test('every time is decided once and in order, whatever is lost on the way; none runs beside another unless that is allowed', () => {
  fc.assert(
    fc.property(anyPlan, fc.array(anyStep, { minLength: 1, maxLength: 25 }), (plan, steps) => {
      const rows = new Map<number, Row>();
      let nowMs = START;
      let decidedMs = START - 1;
      for (const { passMs, ended, lost } of steps) {
        nowMs += passMs;
        const running = [...rows].filter(([, { state }]) => state === 'pending' || state === 'started');
        for (const position of ended) {
          const row = running[position]?.[1];
          if (row !== undefined) row.state = row.state === 'pending' ? 'started' : 'ended';
        }
        const open = [...rows].flatMap(([timeMs, { state }]): OpenFiring[] =>
          state === 'pending' || state === 'queued' || state === 'started' ? [{ timeMs, state }] : [],
        );
        const decided = decide(plan, { nowMs, decidedMs, open });
        expect(decide(plan, { nowMs, decidedMs, open })).toEqual(decided);
        if (lost) continue;
        for (const { timeMs, dueMs, state, sinceMs } of decided.firings) {
          expect(rows.has(timeMs)).toBe(false);
          expect(timeMs).toBeGreaterThan(decidedMs);
          expect(dueMs).toBeLessThanOrEqual(nowMs);
          rows.set(timeMs, { state, sinceMs, cancel: false });
        }
        for (const timeMs of decided.start) rows.set(timeMs, { ...row(rows, timeMs, 'queued'), state: 'pending' });
        for (const { timeMs } of decided.drop) rows.set(timeMs, { ...row(rows, timeMs, 'queued'), state: 'skipped' });
        for (const timeMs of decided.cancel) row(rows, timeMs).cancel = true;
        expect(decided.decidedMs).toBeGreaterThanOrEqual(decidedMs);
        decidedMs = decided.decidedMs;
        // Nothing more is to be done before the next time is due.
        expect(decided.nextDueMs).toBeGreaterThan(nowMs);

        const states = [...rows.values()].map(({ state }) => state);
        const active = states.filter((state) => state === 'pending' || state === 'started').length;
        const queued = states.filter((state) => state === 'queued').length;
        if (plan.overlap !== 'allow') expect(active).toBeLessThanOrEqual(1);
        if (plan.overlap === 'queue') expect(queued).toBeLessThanOrEqual(plan.maxQueued);
        if (plan.overlap === 'cancel') expect(queued).toBeLessThanOrEqual(1);
        if (queued > 0) expect(active).toBeGreaterThan(0);
      }
      const times = plan.times.latest(100_000, START - 1, decidedMs);
      expect([...rows.keys()]).toEqual([...rows.keys()].toSorted((a, b) => a - b));
      for (const timeMs of times) expect(isAccountedFor(timeMs, rows)).toBe(true);
      for (const timeMs of rows.keys()) expect(times).toContain(timeMs);
    }),
    { numRuns: 200 },
  );
});

function row(rows: Map<number, Row>, timeMs: number, state?: Row['state']): Row {
  const found = rows.get(timeMs);
  if (found === undefined) throw new Error(`there is no firing at ${timeMs}`);
  if (state !== undefined) expect(found.state).toBe(state);
  return found;
}

/** By a row of its own, or by one that stands for all since an earlier time. */
function isAccountedFor(timeMs: number, rows: ReadonlyMap<number, Row>): boolean {
  if (rows.has(timeMs)) return true;
  for (const [at, { sinceMs }] of rows) {
    if (at > timeMs && sinceMs !== undefined && sinceMs <= timeMs) return true;
  }
  return false;
}
