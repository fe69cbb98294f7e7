import { Execution_State as State } from '@harrier/shared/gen/execution';
import { ScheduleFiring_State as FiringState } from '@harrier/shared/gen/schedule';
import { WorkflowRun_State as RunState } from '@harrier/shared/gen/workflow';
import { auditMarks, auditRecord, type CodeRun, nameIn, startsOf, whyNotSucceeded } from './code-auditor.ts';
import type { FiringRecord, Mark, RoundEvidence, ScheduleEvidence, ScheduleRecord, StartedRecord } from './evidence.ts';
import type { Finding, Offence } from './offences.ts';
import { type SchedulePlan, timesIn } from './schedule-plan.ts';

type Add = (offence: Offence, message: string, count?: number) => void;

/** Times are stored in milliseconds, rounded: what is compared may be off by one on either side. */
const ROUNDING_MS = 2;

/** What must be of a schedule: what became of each of its times, and of what it started. */
export function auditSchedule(evidence: ScheduleEvidence, round: RoundEvidence): Finding[] {
  const { plan, answer, record } = evidence;
  const findings: Finding[] = [];
  const add: Add = (offence, message, count = 1) => {
    if (count > 0) findings.push({ offence, count, message: `${plan.key} (schedule): ${message}` });
  };
  if (answer === undefined) add('lost', 'no call for the schedule was answered');
  else if (record === undefined) add('lost', 'its caller was told that it is made, and the database has none');
  else if (answer.untilMs === undefined) add('lost', 'no call that gives it an end was answered');
  if (answer?.untilMs === undefined || record === undefined) return findings;
  // The first moment that can be a time is the one after it was made.
  const expected = timesIn(plan, answer.startMs, record.createMs + 1, answer.untilMs);
  auditTimes(record, expected, timesIn(plan, answer.startMs, answer.untilMs, record.updateMs + 1), add);
  auditStarted(evidence, record, round, add);
  auditMisfires(plan, record, add);
  for (const firing of record.firings) auditOverlap(plan, firing, record, add);
  auditCode(evidence, record, add);
  for (const [timeMs, marks] of evidence.marks) {
    if (plan.job !== undefined) findings.push(...auditMarks({ ...plan.job, key: at(plan.key, timeMs) }, marks, round));
  }
  if (plan.job !== undefined) {
    const executions = record.started.flatMap(({ execution }) => execution ?? []);
    for (const execution of executions) findings.push(...auditRecord(plan.job, execution, round, false));
  }
  return findings;
}

/** Each execution that the schedule started, with what its code wrote. */
export function runsOfSchedule({ plan: { job }, record, marks }: ScheduleEvidence): CodeRun[] {
  const all = [...marks.values()].flat();
  if (job === undefined) return [];
  return (record?.started ?? []).map(({ id, execution }) => ({
    ...{ plan: job, record: execution, repeats: 0 },
    marks: all.filter(({ executionId }) => executionId === id),
  }));
}

/** Times that started something. */
export function firedOf({ record }: ScheduleEvidence): FiringRecord[] {
  return (record?.firings ?? []).filter(({ state }) => state === FiringState.STARTED);
}

/**
 * Of each time there is one record, its own or one that stands for it; and none of any other time.
 * @param possible times behind its end that came before it was told of it
 */
function auditTimes(
  { firings }: ScheduleRecord,
  expected: readonly number[],
  possible: readonly number[],
  add: Add,
): void {
  const told = (timeMs: number) =>
    firings.filter((one) => timeMs >= (one.sinceMs ?? one.timeMs) && timeMs <= one.timeMs);
  for (const timeMs of expected) {
    const count = told(timeMs).length;
    if (count === 0) add('times lost', `there is no record of ${textOf(timeMs)}`);
    add('times twice', `${count} records stand for ${textOf(timeMs)}`, count - 1);
  }
  const known = new Set([...expected, ...possible]);
  for (const { timeMs } of firings) {
    if (!known.has(timeMs)) add('times against policy', `${textOf(timeMs)} is none of its times`);
  }
}

/** A time that fired has started one thing, under the key of schedule and time, which ended well; and nothing else was started. */
function auditStarted({ plan, marks }: ScheduleEvidence, record: ScheduleRecord, round: RoundEvidence, add: Add): void {
  const claimed = new Set<string>();
  for (const firing of record.firings) {
    const { timeMs, state, startedId, message } = firing;
    const about = `${textOf(timeMs)} is ${nameIn(FiringState, state)}`;
    if (state === FiringState.SKIPPED) continue;
    if (state !== FiringState.STARTED) {
      add('times lost', `${about}: ${message}`);
      continue;
    }
    const changes = firing.changes.filter((change) => change.state === FiringState.STARTED).length;
    add('times twice', `${about}, which was written ${changes} times`, changes - 1);
    const started = record.started.find(({ id }) => id === startedId);
    if (started === undefined) {
      add('lost', `${about}, and there is no ${startedId}`);
      continue;
    }
    if (claimed.has(started.id)) add('times twice', `${about} by ${started.id}, as another time is`);
    claimed.add(started.id);
    if (started.key !== `schedule/${record.id}/${textOf(timeMs)}`) {
      add('times against policy', `${started.id} of ${textOf(timeMs)} has the key "${started.key}"`);
    }
    const why = whyWrong(plan, firing, started, record, marks.get(timeMs) ?? [], round);
    if (why !== undefined) add('lost', `${about}: ${why}`);
  }
  for (const { id, key } of record.started) {
    if (!claimed.has(id)) add('times twice', `${id} was started under "${key}", of which the schedule knows nothing`);
  }
}

function whyWrong(
  plan: SchedulePlan,
  { timeMs }: FiringRecord,
  { id, state, final, execution }: StartedRecord,
  { firings }: ScheduleRecord,
  marks: readonly Mark[],
  round: RoundEvidence,
): string | undefined {
  if (execution === undefined) {
    return state === RunState.SUCCEEDED && final ? undefined : `run ${id} is ${nameIn(RunState, state)}`;
  }
  // By a time that came after it.
  const mayBeCancelled = plan.overlap === 'cancel' && firings.some((other) => other.timeMs > timeMs);
  if (final && state === State.CANCELLED && mayBeCancelled) return undefined;
  return plan.job === undefined ? `${id} is no run` : whyNotSucceeded(plan.job, execution, marks, round);
}

/** Only what was noticed behind the grace is missed, and of that as much fires as the policy says. */
function auditMisfires({ misfire, graceMs, jitterMs }: SchedulePlan, { firings }: ScheduleRecord, add: Add): void {
  const fired = new Map<number, number>();
  for (const firing of firings) {
    const { timeMs, dueMs, sinceMs, createMs } = firing;
    const about = textOf(timeMs);
    if (dueMs < timeMs || dueMs > timeMs + jitterMs) {
      add('times against policy', `${about} was put off by ${dueMs - timeMs} ms, and the jitter is ${jitterMs} ms`);
    }
    const isLeftOut = isMissed(firing);
    const noticedMs = firing.changes[0]?.atMs ?? createMs;
    if ((isLeftOut || sinceMs !== null) && noticedMs - dueMs < graceMs - ROUNDING_MS) {
      add('times against policy', `${about} is taken as missed, and was noticed ${noticedMs - dueMs} ms late`);
    }
    if (isLeftOut ? misfire !== 'skip' : sinceMs !== null && misfire !== 'once') {
      add('times against policy', `${about} was missed, and is ${nameIn(FiringState, firing.state)} with ${misfire}`);
    }
    // It was noticed after that moment, so that it was missed for certain.
    if (isLeftOut || createMs - dueMs <= graceMs + ROUNDING_MS) continue;
    if (misfire === 'skip') add('times against policy', `${about} was missed, and fired`);
    fired.set(createMs, (fired.get(createMs) ?? 0) + 1);
  }
  for (const count of misfire === 'once' ? fired.values() : []) {
    add('times against policy', `${count} times that were missed together fired`, count - 1);
  }
}

function isMissed({ state, message }: FiringRecord): boolean {
  return state === FiringState.SKIPPED && message !== null && /^missed(;|$)/.test(message);
}

/** Nothing is started, or left out, but as the policy says of what was not over at that moment. */
function auditOverlap(plan: SchedulePlan, firing: FiringRecord, record: ScheduleRecord, add: Add): void {
  const { timeMs, dueMs, changes, message } = firing;
  if (isMissed(firing)) return;
  const { overlap } = plan;
  const began = changes.find(({ state }) => state === FiringState.PENDING);
  if (overlap !== 'allow' && began !== undefined && began.openBefore > 0) {
    add('times against policy', `${textOf(timeMs)} was started beside ${began.openBefore} others, with ${overlap}`);
  }
  const skipped = changes.find(({ state }) => state === FiringState.SKIPPED);
  if (skipped === undefined) return;
  const why = whyNotSkipped(overlap, skipped.openBefore);
  if (why !== undefined) add('times against policy', `${textOf(timeMs)} was skipped ("${message}"), and ${why}`);

  function whyNotSkipped(policy: SchedulePlan['overlap'], open: number): string | undefined {
    switch (policy) {
      case 'allow':
        return 'nothing keeps it from being started beside others';
      case 'queue':
        return whyNotBeyondQueue(plan, firing, record);
      case 'cancel':
        return record.firings.some((other) => other.timeMs > timeMs) ? undefined : 'no other one came after it';
      case 'skip':
        // One may have ended between the decision and its being written down.
        return open > 0 || endedSince(dueMs, record, timeMs) ? undefined : 'all before it had ended';
    }
  }
}

/** Of those before it, one that runs is no reason: only as many as may wait, and waited already. */
function whyNotBeyondQueue(
  { maxQueued }: SchedulePlan,
  { timeMs, createMs, changes }: FiringRecord,
  { firings }: ScheduleRecord,
): string | undefined {
  const queued = (all: FiringRecord['changes']) => all.findIndex(({ state }) => state === FiringState.QUEUED);
  if (queued(changes) >= 0) return 'it waited already';
  const waited = firings.filter((other) => {
    const began = queued(other.changes) + 1;
    // What one decision does is written down together: one that it lets begin waited when it left this one out.
    return other.timeMs < timeMs && began > 0 && (other.changes[began]?.atMs ?? createMs) >= createMs - ROUNDING_MS;
  });
  return waited.length < maxQueued ? `${waited.length} waited before it` : undefined;
}

function endedSince(dueMs: number, { firings, started }: ScheduleRecord, beforeMs: number): boolean {
  const ids = new Set(firings.filter(({ timeMs }) => timeMs < beforeMs).map(({ startedId }) => startedId));
  return started.some(({ id, endMs }) => ids.has(id) && (endMs ?? Number.POSITIVE_INFINITY) >= dueMs);
}

/** By the witness: code ran for times that fired, in the execution of the time, and beside no other one unless it may. */
function auditCode({ plan, marks }: ScheduleEvidence, { firings }: ScheduleRecord, add: Add): void {
  let overMs = Number.NEGATIVE_INFINITY;
  for (const [timeMs, written] of [...marks].sort(([a], [b]) => a - b)) {
    const firing = firings.find((one) => one.timeMs === timeMs && one.state === FiringState.STARTED);
    const ids = [...new Set(written.map(({ executionId }) => executionId))].filter((id) => id !== firing?.startedId);
    add('times twice', `code of ${textOf(timeMs)} ran in ${ids.join(', ')}, which it did not start`, ids.length);
    const starts = startsOf(written);
    const first = starts[0]?.startMs ?? Number.POSITIVE_INFINITY;
    if (plan.overlap !== 'allow' && first < overMs) {
      add('times against policy', `code of ${textOf(timeMs)} began before that of the one before was over`);
    }
    overMs = Math.max(overMs, ...starts.map(({ endMs }) => endMs));
  }
}

function at(key: string, timeMs: number): string {
  return `${key} of ${textOf(timeMs)}`;
}

function textOf(ms: number): string {
  return new Date(ms).toISOString();
}
