import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { ScheduleFiring_State as FiringState } from '@harrier/shared/gen/schedule';
import { WorkflowRun_State as RunState } from '@harrier/shared/gen/workflow';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decide, type OpenFiring } from '../../control-plane/src/schedule/decide.ts';
import { intervalTimes } from '../../control-plane/src/schedule/times.ts';
import { audit } from '../../faults/auditor.ts';
import type { FiringRecord, Mark, RoundEvidence, ScheduleEvidence, StartedRecord } from '../../faults/evidence.ts';
import type { ExecutionPlan } from '../../faults/execution-plan.ts';
import { expectedResult } from '../../faults/expected.ts';
import { HARMLESS } from '../../faults/faults/fault.ts';
import { type SchedulePlan, timesIn } from '../../faults/schedule-plan.ts';

const SCHEDULE = '01900000-0000-7000-8000-0000000000aa';
const EVERY_MS = 2_000;
const START_MS = Date.UTC(2030, 0, 1);
const TIMES = [0, 1, 2, 3].map((i) => START_MS + i * EVERY_MS);
const UNTIL_MS = START_MS + 3 * EVERY_MS + 1;
const GRACE_MS = 1_000;

const JOB: ExecutionPlan = {
  ...{ key: '7-1-s2', kind: 'inline', way: 'schedule', arrivalMs: 0, runMs: 500, lines: 0, lineBytes: 20 },
  ...{ failures: 0, retries: true, isFlaky: false, daemon: false },
};
const PLAN: SchedulePlan = {
  ...{ key: '7-1-s2', times: 'interval', everyMs: EVERY_MS, jitterMs: 0, misfire: 'all', graceMs: GRACE_MS },
  ...{ overlap: 'skip', maxQueued: 2, job: JOB, leastMs: 6_000 },
};

const idOf = (i: number) => `01900000-0000-7000-8000-00000000000${i}`;
const timeOf = (i: number) => TIMES[i] ?? Number.NaN;

/** A time that fired on time, after the one before it had ended. */
function firing(i: number): FiringRecord {
  const timeMs = timeOf(i);
  const changes = [FiringState.PENDING, FiringState.STARTED].map((state, n) => ({
    ...{ state, atMs: timeMs + 5 + n, openBefore: 0 },
  }));
  return {
    ...{ timeMs, dueMs: timeMs, state: FiringState.STARTED, sinceMs: null, startedId: idOf(i), message: null },
    ...{ createMs: timeMs + 3, changes },
  };
}

function started(i: number): StartedRecord {
  const id = idOf(i);
  const state = State.SUCCEEDED;
  return {
    ...{ id, key: `schedule/${SCHEDULE}/${new Date(timeOf(i)).toISOString()}`, state, final: true },
    endMs: timeOf(i) + 700,
    execution: {
      ...{ id, state, final: true, attempt: 1, errorCode: null, errorMessage: null, attempts: [], chunks: [] },
      ...{ outputJson: expectedResult(JOB), endings: [{ attempt: 1, state }], read: undefined },
    },
  };
}

/** On a clock that begins with the schedule. */
const ran = (i: number, executionId = idOf(i), startMs = i * EVERY_MS): Mark[] =>
  (['start', 'alive', 'end'] as const).map((event, n) => ({
    ...{ attempt: 1, executionId, nonce: `${executionId}-${startMs}`, event, timeMs: startMs + 100 + 200 * n },
  }));

type Sound = ScheduleEvidence & { record: NonNullable<ScheduleEvidence['record']>; marks: Map<number, Mark[]> };

/** A schedule to which nothing happened. */
function sound(plan: Partial<SchedulePlan> = {}): Sound {
  return {
    plan: { ...PLAN, ...plan },
    answer: { startMs: START_MS, untilMs: UNTIL_MS },
    record: {
      ...{ id: SCHEDULE, createMs: START_MS - 100, updateMs: UNTIL_MS - 500 },
      firings: TIMES.map((_, i) => firing(i)),
      started: TIMES.map((_, i) => started(i)),
    },
    marks: new Map(TIMES.map((timeMs, i) => [timeMs, ran(i)])),
  };
}

function round(schedule: ScheduleEvidence): RoundEvidence {
  return {
    ...{ fault: 'replica-kill', allowance: HARMLESS, injectedAtMs: 5_000, quietAtMs: 60_000, executions: [], runs: [] },
    ...{ schedules: [schedule], orphanProcesses: [], orphanContainers: [], recoveryMs: 300, endedByThemselves: [] },
    hasStruck: true,
  };
}

/** What is counted, by offence, after a change to the sound schedule. */
function spoilt(change: (evidence: Sound) => void, plan: Partial<SchedulePlan> = {}): Record<string, number> {
  const evidence = sound(plan);
  change(evidence);
  const found: Record<string, number> = {};
  for (const { offence, count } of audit(round(evidence)).findings) found[offence] = (found[offence] ?? 0) + count;
  return found;
}

/** Takes what a time has started out of the evidence, as if it had started nothing. */
function leaveOut({ record, marks }: Sound, i: number, fields: Partial<FiringRecord>): void {
  const state = fields.state ?? FiringState.SKIPPED;
  const changes = [{ state, atMs: fields.changes?.[0]?.atMs ?? timeOf(i) + 5, openBefore: 0 }];
  Object.assign(record.firings[i] ?? {}, { state, startedId: null, changes, ...fields });
  record.started = record.started.filter(({ id }) => id !== idOf(i));
  marks.delete(timeOf(i));
}

const against = { 'times against policy': 1 };
const LATE_MS = GRACE_MS + 500;
const seenLate = (i: number, openBefore = 0) => ({
  createMs: timeOf(i) + LATE_MS,
  changes: [{ state: FiringState.SKIPPED, atMs: timeOf(i) + LATE_MS, openBefore }],
});

test('a schedule whose times all fired is nobody’s fault, and its firings are counted', () => {
  expect(audit(round(sound()))).toMatchObject({ findings: [], firings: 4, executions: 0, runs: 0, rerun: 0 });
  for (const misfire of ['skip', 'once', 'all'] as const) {
    for (const overlap of ['allow', 'skip', 'queue', 'cancel'] as const) {
      expect(spoilt(() => undefined, { misfire, overlap })).toEqual({});
    }
  }
});

test('a schedule that nobody answered for, or that is not there, is lost', () => {
  expect(spoilt((evidence) => Object.assign(evidence, { answer: undefined }))).toEqual({ lost: 1 });
  expect(spoilt((evidence) => Object.assign(evidence, { record: undefined }))).toEqual({ lost: 1 });
  expect(spoilt(({ answer }) => Object.assign(answer ?? {}, { untilMs: undefined }))).toEqual({ lost: 1 });
});

test('a time of which there is no record is found, also the last one', () => {
  for (const i of [0, 2, 3]) {
    expect(
      spoilt((evidence) => {
        leaveOut(evidence, i, {});
        evidence.record.firings.splice(i, 1);
      }),
    ).toEqual({ 'times lost': 1 });
  }
});

test('a time that is not settled, or was refused, is found', () => {
  for (const state of [FiringState.PENDING, FiringState.QUEUED, FiringState.FAILED]) {
    expect(spoilt((evidence) => leaveOut(evidence, 1, { state, message: 'why' }))).toEqual({ 'times lost': 1 });
  }
});

test('what was made after some of its times, or was given its end late, has those that were between', () => {
  expect(spoilt(({ record }) => Object.assign(record, { createMs: timeOf(0) }))).toEqual(against);
  const answer = { startMs: START_MS, untilMs: timeOf(3) };
  const late = { updateMs: timeOf(3) + 100 };
  expect(spoilt((evidence) => Object.assign(evidence, { answer }))).toEqual(against);
  expect(
    spoilt((evidence) => {
      Object.assign(evidence, { answer });
      Object.assign(evidence.record, late);
    }),
  ).toEqual({});
});

test('a time that fired twice is found, whoever tells of it', () => {
  const twice = { 'times twice': 1 };
  const another = idOf(9);
  // Another execution that says that the schedule has started it.
  expect(spoilt(({ record }) => record.started.push({ ...started(1), id: another, execution: undefined }))).toEqual(
    twice,
  );
  // Code that was told the time, in an execution that nobody knows.
  expect(spoilt(({ marks }) => marks.get(timeOf(1))?.push(...ran(1, another, EVERY_MS + 1_000)))).toEqual(twice);
  // Code of a time that did not fire.
  expect(
    spoilt((evidence) => {
      leaveOut(evidence, 1, { message: 'the one before has not ended' });
      Object.assign(evidence.record.firings[1]?.changes[0] ?? {}, { openBefore: 1 });
      evidence.marks.set(timeOf(1), ran(1));
    }),
  ).toEqual(twice);
  // Another record that stands for it, and a firing that was settled again.
  expect(
    spoilt(
      ({ record }) => {
        const changes = [{ state: FiringState.PENDING, atMs: timeOf(2) + LATE_MS, openBefore: 0 }];
        Object.assign(record.firings[2] ?? {}, { sinceMs: timeOf(1), changes });
      },
      { misfire: 'once' },
    ),
  ).toEqual(twice);
  expect(
    spoilt(({ record }) => record.firings[1]?.changes.push({ state: FiringState.STARTED, atMs: 0, openBefore: 0 })),
  ).toEqual(twice);
  // Two times with one execution: that of the other is left over, and its code ran.
  expect(
    spoilt(({ record }) => Object.assign(record.firings[2] ?? {}, { startedId: idOf(1) }))['times twice'],
  ).toBeGreaterThan(1);
});

test('what was started and is not there, has not ended, or has not done what it was to do is lost', () => {
  const lost = { lost: 1 };
  expect(spoilt(({ record }) => record.started.splice(1, 1))).toEqual(lost);
  const change = (fields: Partial<StartedRecord>) => (evidence: Sound) => {
    const [, one] = evidence.record.started;
    Object.assign(one ?? {}, fields);
    Object.assign(one?.execution ?? {}, { state: fields.state ?? State.SUCCEEDED, final: fields.final ?? true });
  };
  expect(spoilt(change({ state: State.RUNNING, final: false, endMs: null }))).toEqual(lost);
  expect(spoilt(change({ state: State.FAILED }))).toEqual(lost);
  expect(spoilt(change({ state: State.CANCELLED }))).toEqual(lost);
  expect(spoilt(change({ state: State.CANCELLED }), { overlap: 'cancel' })).toEqual({});
  expect(spoilt(({ marks }) => marks.get(timeOf(1))?.pop())).toEqual(lost);
  const runs = ({ record, marks }: Sound) => {
    for (const one of record.started) Object.assign(one, { execution: undefined, state: RunState.SUCCEEDED });
    marks.clear();
  };
  expect(spoilt(runs, { job: undefined, overlap: 'allow' })).toEqual({});
  expect(
    spoilt(
      (evidence) => {
        runs(evidence);
        Object.assign(evidence.record.started[1] ?? {}, { state: RunState.FAILED });
      },
      { job: undefined, overlap: 'allow' },
    ),
  ).toEqual(lost);
});

test('what a schedule started under another key is found', () => {
  expect(spoilt(({ record }) => Object.assign(record.started[1] ?? {}, { key: 'another' }))).toEqual(against);
});

test('a time within the grace fires, whatever the policy', () => {
  for (const misfire of ['skip', 'once', 'all'] as const) {
    expect(spoilt((evidence) => leaveOut(evidence, 1, { message: 'missed' }), { misfire })).not.toEqual({});
  }
  expect(spoilt((evidence) => leaveOut(evidence, 1, { message: 'missed' }), { misfire: 'skip' })).toEqual(against);
});

test('of what was missed, as much fires as the policy says', () => {
  const missed = (evidence: Sound) => leaveOut(evidence, 1, { message: 'missed', ...seenLate(1) });
  expect(spoilt(missed, { misfire: 'skip' })).toEqual({});
  expect(spoilt(missed, { misfire: 'once' })).toEqual(against);
  expect(spoilt(missed, { misfire: 'all' })).toEqual(against);
  // It fired, though it was missed for certain.
  const late =
    (...numbers: number[]) =>
    (evidence: Sound) => {
      const createMs = timeOf(numbers.at(-1) ?? 0) + LATE_MS;
      for (const i of numbers) {
        const { changes = [] } = evidence.record.firings[i] ?? {};
        for (const [n, change] of changes.entries()) change.atMs = createMs + n;
        Object.assign(evidence.record.firings[i] ?? {}, { createMs });
      }
    };
  expect(spoilt(late(1), { misfire: 'skip' })).toEqual(against);
  expect(spoilt(late(1, 2), { misfire: 'all' })).toEqual({});
  expect(spoilt(late(1), { misfire: 'once' })).toEqual({});
  expect(spoilt(late(1, 2), { misfire: 'once' })).toEqual(against);
  // The latest stands for all, of which it says since when.
  const standing = (evidence: Sound) => {
    late(1, 2)(evidence);
    leaveOut(evidence, 1, {});
    evidence.record.firings.splice(1, 1);
    Object.assign(evidence.record.firings[1] ?? {}, { sinceMs: timeOf(1) });
  };
  expect(spoilt(standing, { misfire: 'once' })).toEqual({});
  expect(spoilt(standing, { misfire: 'all' })).toEqual(against);
});

test('a time that is put off further than the jitter is found', () => {
  const putOff = ({ record }: Sound) => Object.assign(record.firings[1] ?? {}, { dueMs: timeOf(1) + 300 });
  expect(spoilt(putOff)).toEqual(against);
  expect(spoilt(putOff, { jitterMs: 300 })).toEqual({});
});

test('what is started beside what has not ended is found, in the database and by the witness', () => {
  const beside = ({ record }: Sound) => Object.assign(record.firings[2]?.changes[0] ?? {}, { openBefore: 1 });
  const early = ({ marks }: Sound) => marks.set(timeOf(2), ran(2, idOf(2), EVERY_MS + 300));
  for (const overlap of ['skip', 'queue', 'cancel'] as const) {
    expect(spoilt(beside, { overlap })).toEqual(against);
    expect(spoilt(early, { overlap })).toEqual(against);
  }
  expect(spoilt(beside, { overlap: 'allow' })).toEqual({});
  expect(spoilt(early, { overlap: 'allow' })).toEqual({});
});

test('a time is left out only for what its policy names', () => {
  const skipped = (i: number, openBefore: number) => (evidence: Sound) => {
    const changes = [{ state: FiringState.SKIPPED, atMs: timeOf(i) + 5, openBefore }];
    leaveOut(evidence, i, { message: 'others are before it', changes });
    Object.assign(evidence.record.firings[i] ?? {}, { changes });
  };
  expect(spoilt(skipped(1, 1), { overlap: 'skip' })).toEqual({});
  expect(spoilt(skipped(1, 0), { overlap: 'skip' })).toEqual(against);
  // The one before ended while it was being decided.
  expect(
    spoilt(
      (evidence) => {
        skipped(1, 0)(evidence);
        Object.assign(evidence.record.started[0] ?? {}, { endMs: timeOf(1) + 1 });
      },
      { overlap: 'skip' },
    ),
  ).toEqual({});
  expect(spoilt(skipped(1, 1), { overlap: 'allow' })).toEqual(against);
  expect(spoilt(skipped(1, 1), { overlap: 'cancel' })).toEqual({});
  expect(spoilt(skipped(3, 1), { overlap: 'cancel' })).toEqual(against);
});

test('with a queue, a time is left out only when as many wait as may; what runs is not of them', () => {
  const waited = (i: number, untilMs: number) => {
    const states = [FiringState.QUEUED, FiringState.PENDING, FiringState.STARTED];
    return (evidence: Sound) => {
      const moments = [timeOf(i) + 5, untilMs, untilMs + 1];
      const changes = states.map((state, n) => ({
        state,
        atMs: moments[n] ?? Number.NaN,
        openBefore: n === 0 ? 1 : 0,
      }));
      Object.assign(evidence.record.firings[i] ?? {}, { changes });
    };
  };
  const skippedMs = timeOf(3) + 5;
  const beyond =
    (...before: ((evidence: Sound) => void)[]) =>
    (evidence: Sound) => {
      for (const change of before) change(evidence);
      const changes = [{ state: FiringState.SKIPPED, atMs: skippedMs, openBefore: before.length + 1 }];
      leaveOut(evidence, 3, { message: '2 others wait already', changes, createMs: skippedMs - 2 });
    };
  const overlap = 'queue';
  const lateMs = timeOf(3) + 9_000;
  expect(spoilt(beyond(waited(1, lateMs), waited(2, lateMs + 900)), { overlap })).toEqual({});
  // The first one is let begin by the very decision, before or after the other is written down.
  expect(spoilt(beyond(waited(1, skippedMs - 1), waited(2, lateMs)), { overlap })).toEqual({});
  expect(spoilt(beyond(waited(1, skippedMs + 1), waited(2, lateMs)), { overlap })).toEqual({});
  // One ran, and another one waited.
  expect(spoilt(beyond(waited(2, lateMs)), { overlap })).toEqual(against);
  expect(spoilt(beyond(waited(1, timeOf(2) + 5), waited(2, lateMs)), { overlap })).toEqual(against);
  expect(spoilt(beyond(), { overlap })).toEqual(against);
  // It had its place.
  expect(
    spoilt(
      (evidence) => {
        beyond(waited(1, lateMs), waited(2, lateMs + 900))(evidence);
        evidence.record.firings[3]?.changes.unshift({ state: FiringState.QUEUED, atMs: skippedMs - 1, openBefore: 3 });
      },
      { overlap },
    ),
  ).toEqual(against);
});

/** Looks at the times of a schedule, so long after one another, with runs that are so long and so many that may wait. */
function decided(passedMs: readonly number[], runMs: number, maxQueued: number): Sound {
  const plan: SchedulePlan = { ...PLAN, overlap: 'queue', maxQueued, graceMs: 3_600_000, job: undefined };
  const rule = { ...plan, id: SCHEDULE, times: intervalTimes(START_MS, EVERY_MS), maxMissed: 100 };
  const untilMs = START_MS + 1 + passedMs.reduce((sum, ms) => sum + ms, 0);
  const record: Sound['record'] = {
    id: SCHEDULE,
    createMs: START_MS - 100,
    updateMs: START_MS,
    firings: [],
    started: [],
  };
  const open = new Map<number, OpenFiring>();
  const endsMs = new Map<number, number>();
  let decidedMs = START_MS - 1;
  let nowMs = START_MS;
  const write = (firing: FiringRecord, state: FiringState, atMs: number) => {
    const openBefore = [...open.keys()].filter((timeMs) => timeMs < firing.timeMs).length;
    firing.changes.push({ state, atMs, openBefore });
    firing.state = state;
  };
  const start = (firing: FiringRecord) => {
    const { timeMs } = firing;
    const number = String(record.started.length).padStart(12, '0');
    firing.startedId = `01900000-0000-7000-9000-${number}`;
    open.set(timeMs, { timeMs, state: 'started' });
    write(firing, FiringState.STARTED, nowMs + 2);
    endsMs.set(timeMs, nowMs + 2 + runMs);
    const key = `schedule/${SCHEDULE}/${new Date(timeMs).toISOString()}`;
    const ended = { state: RunState.SUCCEEDED, final: true, endMs: nowMs + 2 + runMs, execution: undefined };
    record.started.push({ id: firing.startedId, key, ...ended });
  };
  for (let look = 0; look < passedMs.length || open.size > 0; look++) {
    nowMs += passedMs[look] ?? 1_000;
    for (const [timeMs, endMs] of endsMs) if (endMs <= nowMs) open.delete(timeMs);
    const found = decide(rule, { nowMs: Math.min(nowMs, untilMs - 1), decidedMs, open: [...open.values()] });
    ({ decidedMs } = found);
    for (const { state, message = null, ...times } of found.firings) {
      if (state !== 'skipped') open.set(times.timeMs, { timeMs: times.timeMs, state });
      const stored = FiringState[state.toUpperCase() as 'PENDING' | 'QUEUED' | 'SKIPPED'];
      const firing = { ...times, sinceMs: null, startedId: null, message, createMs: nowMs, changes: [], state: stored };
      record.firings.push(firing);
      write(firing, stored, nowMs + 1);
    }
    for (const firing of record.firings) {
      if (found.start.includes(firing.timeMs)) write(firing, FiringState.PENDING, nowMs + 1);
      if (firing.state === FiringState.PENDING) start(firing);
    }
  }
  return { plan, answer: { startMs: START_MS, untilMs }, record, marks: new Map() };
}

test('of all that a queue leaves out nothing is a fault, and all of it is when one more may wait', () => {
  let skips = 0;
  const passes = fc.array(fc.integer({ min: 10, max: 9_000 }), { minLength: 1, maxLength: 20 });
  fc.assert(
    fc.property(passes, fc.nat(12_000), fc.integer({ min: 1, max: 3 }), (passedMs, runMs, maxQueued) => {
      const evidence = decided(passedMs, runMs, maxQueued);
      const skipped = evidence.record.firings.filter(({ state }) => state === FiringState.SKIPPED).length;
      skips += skipped;
      expect(audit(round(evidence)).findings).toEqual([]);
      const { findings } = audit(round({ ...evidence, plan: { ...evidence.plan, maxQueued: maxQueued + 1 } }));
      expect(findings.filter(({ offence }) => offence === 'times against policy')).toHaveLength(skipped);
      expect(findings).toHaveLength(skipped);
    }),
  );
  expect(skips).toBeGreaterThan(0);
});

test('an attempt that was lost and made again is no second firing', () => {
  const evidence = sound();
  evidence.marks.get(timeOf(1))?.unshift(...ran(1, idOf(1), EVERY_MS - 500).slice(0, 1));
  const lost = { attempt: 1, state: State.FAILED, errorCode: Code.AGENT_LOST };
  evidence.record.started[1]?.execution?.attempts.push(lost);
  expect(audit(round(evidence))).toMatchObject({ findings: [], duplicateStarts: 1, rerun: 1 });
});

test('times of a plan are those in a window: by the calendar whole seconds, else from the start on', () => {
  const window = fc.record({ startMs: fc.integer({ min: 0, max: 1e7 }), fromMs: fc.integer({ min: 0, max: 1e7 }) });
  fc.assert(
    fc.property(window, fc.nat(20_000), fc.constantFrom('cron', 'interval'), ({ startMs, fromMs }, length, times) => {
      const found = timesIn({ ...PLAN, times }, startMs, fromMs, fromMs + length);
      const isTime = (ms: number) => ms >= startMs && (times === 'cron' ? ms : ms - startMs) % EVERY_MS === 0;
      const all = Array.from({ length }, (_, i) => fromMs + i).filter(isTime);
      expect(found).toEqual(all);
    }),
  );
});
