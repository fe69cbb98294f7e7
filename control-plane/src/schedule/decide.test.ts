import { describe, expect, test } from 'vitest';
import { decide, dueMs, type OpenFiring, type Plan } from './decide.ts';
import { intervalTimes, singleTime } from './times.ts';

/** Times at 0, 10, 20, ... seconds. */
const plan: Plan = {
  id: 'a',
  times: intervalTimes(0, 10_000),
  jitterMs: 0,
  misfire: 'once',
  graceMs: 60_000,
  maxMissed: 3,
  overlap: 'allow',
  maxQueued: 2,
};
const seconds = (given: Partial<Plan>, situation: { now: number; decided: number; open?: OpenFiring[] }) => {
  const { now, decided, open = [] } = situation;
  const { firings, ...rest } = decide({ ...plan, ...given }, { nowMs: now * 1000, decidedMs: decided * 1000, open });
  return {
    ...rest,
    firings: firings.map(({ timeMs, state, sinceMs, message }) => [
      timeMs / 1000,
      state,
      ...(message === undefined ? [] : [message]),
      ...(sinceMs === undefined ? [] : [sinceMs / 1000]),
    ]),
  };
};
const started = (s: number): OpenFiring => ({ timeMs: s * 1000, state: 'started' });
const queued = (s: number): OpenFiring => ({ timeMs: s * 1000, state: 'queued' });
const pending = (s: number): OpenFiring => ({ timeMs: s * 1000, state: 'pending' });

describe('what is due', () => {
  test('is what has come since the last look, each once', () => {
    expect(seconds({}, { now: 25, decided: 0 })).toEqual({
      firings: [
        [10, 'pending'],
        [20, 'pending'],
      ],
      ...{ start: [], drop: [], cancel: [], decidedMs: 20_000, nextDueMs: 30_000 },
    });
    expect(seconds({}, { now: 25, decided: 20 }).firings).toEqual([]);
  });

  test('is nothing for a schedule that is over', () => {
    const once = { times: singleTime(10_000) };
    expect(seconds(once, { now: 10, decided: 0 })).toMatchObject({ firings: [[10, 'pending']], nextDueMs: undefined });
    expect(seconds(once, { now: 11, decided: 10 }).firings).toEqual([]);
  });
});

describe('what was missed', () => {
  const away = { now: 1_005, decided: 100 };
  /** Within the grace: late, not missed. */
  const late = [950, 960, 970, 980, 990, 1_000].map((s) => [s, 'pending']);

  test('is skipped, and one firing says so', () => {
    expect(seconds({ misfire: 'skip' }, away).firings).toEqual([[940, 'skipped', 'missed', 110], ...late]);
  });

  test('fires once', () => {
    expect(seconds({ misfire: 'once' }, away).firings).toEqual([[940, 'pending', 110], ...late]);
    expect(seconds({ misfire: 'once' }, { ...away, decided: 930 }).firings).toEqual([[940, 'pending'], ...late]);
  });

  test('fires as many times as are made up for', () => {
    expect(seconds({ misfire: 'all' }, away).firings).toEqual([
      [910, 'skipped', 'missed; 3 later ones fire', 110],
      ...[920, 930, 940].map((s) => [s, 'pending']),
      ...late,
    ]);
    expect(seconds({ misfire: 'all' }, { ...away, decided: 910 }).firings).toEqual([
      ...[920, 930, 940].map((s) => [s, 'pending']),
      ...late,
    ]);
  });

  test('is found at once, however long it has been', () => {
    expect(seconds({ misfire: 'all' }, { now: 1e9 + 5, decided: 100 }).firings).toHaveLength(4 + late.length);
  });
});

describe('while the one before has not ended', () => {
  const now = { now: 25, decided: 10 };

  test('allow starts another one, up to a bound of those that cannot be started', () => {
    expect(seconds({}, { ...now, open: [started(10)] }).firings).toEqual([[20, 'pending']]);
    const many = Array.from({ length: 1_000 }, (_, i) => pending(i - 2_000));
    expect(seconds({}, { ...now, open: many }).firings).toEqual([[20, 'skipped', '1000 others wait to be started']]);
  });

  test('skip does not', () => {
    const message = 'the one of 1970-01-01T00:00:10Z has not ended';
    expect(seconds({ overlap: 'skip' }, { ...now, open: [started(10)] }).firings).toEqual([[20, 'skipped', message]]);
    expect(seconds({ overlap: 'skip' }, { ...now, open: [pending(10)] }).firings).toEqual([[20, 'skipped', message]]);
    expect(seconds({ overlap: 'skip' }, { ...now, open: [] }).firings).toEqual([[20, 'pending']]);
  });

  test('queue lets it wait, up to a bound, and starts one when nothing is under way', () => {
    const queue = { overlap: 'queue' as const };
    expect(seconds(queue, { now: 45, decided: 10, open: [started(10)] })).toMatchObject({
      firings: [
        [20, 'queued'],
        [30, 'queued'],
        [40, 'skipped', '2 others wait already'],
      ],
      start: [],
    });
    expect(seconds(queue, { now: 21, decided: 20, open: [queued(10), queued(20)] })).toMatchObject({
      firings: [],
      start: [10_000],
    });
    expect(seconds(queue, { now: 31, decided: 10 }).firings).toEqual([
      [20, 'pending'],
      [30, 'queued'],
    ]);
  });

  test('cancel makes room, and only the last one is started', () => {
    const cancel = { overlap: 'cancel' as const };
    expect(seconds(cancel, { ...now, open: [started(10)] })).toMatchObject({
      firings: [[20, 'queued']],
      cancel: [10_000],
    });
    expect(seconds(cancel, { now: 35, decided: 20, open: [started(10), queued(20)] })).toMatchObject({
      firings: [[30, 'queued']],
      cancel: [10_000],
      drop: [{ timeMs: 20_000, message: 'the one of 1970-01-01T00:00:30Z came before it was started' }],
    });
    expect(seconds(cancel, { now: 35, decided: 10 }).firings).toEqual([
      [20, 'skipped', 'the one of 1970-01-01T00:00:30Z came before it was started'],
      [30, 'pending'],
    ]);
    expect(seconds(cancel, { now: 35, decided: 10, open: [started(0)] })).toMatchObject({
      firings: [
        [20, 'skipped', expect.anything()],
        [30, 'queued'],
      ],
      cancel: [0],
    });
  });

  test('what is queued when the policy becomes another is started as that says', () => {
    expect(seconds({}, { now: 21, decided: 20, open: [started(0), queued(10), queued(20)] }).start).toEqual([
      10_000, 20_000,
    ]);
    expect(seconds({ overlap: 'skip' }, { now: 21, decided: 20, open: [queued(10), queued(20)] }).start).toEqual([
      10_000,
    ]);
  });
});

describe('jitter', () => {
  const jittered = { ...plan, jitterMs: 60_000 };

  test('is the same whenever it is asked, other for other schedules, and never reaches the next time', () => {
    const offsets = Array.from({ length: 50 }, (_, i) => dueMs(jittered, i * 10_000) - i * 10_000);
    expect(offsets.every((ms) => ms >= 0 && ms < 10_000)).toBe(true);
    expect(new Set(offsets).size).toBeGreaterThan(40);
    expect(dueMs(jittered, 0)).toBe(dueMs({ ...jittered }, 0));
    expect(dueMs({ ...jittered, id: 'b' }, 0)).not.toBe(dueMs(jittered, 0));
  });

  test('a time waits for it', () => {
    const due = dueMs(jittered, 10_000);
    expect(due).toBeGreaterThan(10_000);
    const before = decide(jittered, { nowMs: due - 1, decidedMs: 0, open: [] });
    expect(before).toMatchObject({ firings: [], decidedMs: 0, nextDueMs: due });
    expect(decide(jittered, { nowMs: due, decidedMs: 0, open: [] })).toMatchObject({
      firings: [{ timeMs: 10_000, dueMs: due }],
    });
  });
});
