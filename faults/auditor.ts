import { Execution_State as State } from '@harrier/shared/gen/execution';
import {
  auditMarks,
  auditRecord,
  type CodeRun,
  isFailureOfAttempt,
  isHandler,
  nameIn,
  startsOf,
  whyNotSucceeded,
} from './code-auditor.ts';
import type { ExecutionEvidence, ExecutionRecord, RoundEvidence } from './evidence.ts';
import { compareLog } from './log-difference.ts';
import type { Finding, Offence } from './offences.ts';
import { auditRun, runsOfCode } from './run-auditor.ts';
import { auditSchedule, firedOf, runsOfSchedule } from './schedule-auditor.ts';
import { jobsOf } from './workflow-plan.ts';

export interface Verdict {
  fault: string;
  /** Whether the fault had something to hit. */
  hasStruck: boolean;
  findings: Finding[];
  /** Those that were asked for, and those that nodes of workflows needed. */
  executions: number;
  /** Runs of workflows. */
  runs: number;
  /** Times of schedules that started something; its executions and runs are in no other number. */
  firings: number;
  /** Starts of code beyond the one of each attempt that had to be. */
  duplicateStarts: number;
  /** Ran when the fault began, and ended well in the same attempt. */
  readopted: number;
  /** Attempts that were lost and followed by another one. */
  rerun: number;
  /** Bytes of logs that are stored more than once where that may be. */
  overlapBytes: number;
  recoveryMs: number | undefined;
}

/** Holds what was evidenced against what must be. Pure: the same evidence, the same verdict. */
export function audit(round: RoundEvidence): Verdict {
  const findings = [
    ...round.executions.flatMap((evidence) => auditExecution(evidence, round)),
    ...round.runs.flatMap((evidence) => auditRun(evidence, round)),
    ...round.schedules.flatMap((evidence) => auditSchedule(evidence, round)),
  ];
  for (const process of round.orphanProcesses) {
    findings.push({ offence: 'orphan processes', count: 1, message: process });
  }
  for (const container of round.orphanContainers) {
    findings.push({ offence: 'orphan containers', count: 1, message: container });
  }
  for (const message of round.endedByThemselves) findings.push({ offence: 'lost', count: 1, message });
  if (round.recoveryMs === undefined) {
    findings.push({ offence: 'lost', count: 1, message: 'what the fault hit never ran an execution again' });
  }
  const codeRuns = [
    ...round.executions.map(codeRunOf),
    ...round.runs.flatMap(runsOfCode),
    ...round.schedules.flatMap(runsOfSchedule),
  ];
  const sum = (count: (run: CodeRun) => number) => codeRuns.reduce((total, run) => total + count(run), 0);
  return {
    fault: round.fault,
    hasStruck: round.hasStruck,
    findings,
    executions: round.executions.length + round.runs.flatMap(({ plan }) => jobsOf(plan)).length,
    runs: round.runs.length,
    firings: round.schedules.reduce((total, evidence) => total + firedOf(evidence).length, 0),
    duplicateStarts: sum(duplicateStarts),
    readopted: sum((run) => (wasReadopted(run, round.injectedAtMs) ? 1 : 0)),
    rerun: sum(({ record }) => record?.attempts.filter(isLost).length ?? 0),
    overlapBytes: sum(({ plan, record }) =>
      record === undefined ? 0 : compareLog(plan, record, record.chunks, round.allowance).overlapBytes,
    ),
    recoveryMs: round.recoveryMs,
  };
}

function codeRunOf({ plan, records, marks }: ExecutionEvidence): CodeRun {
  return { plan, record: records[0], marks, repeats: marks.filter(({ event }) => event === 'raised').length };
}

function auditExecution(evidence: ExecutionEvidence, round: RoundEvidence): Finding[] {
  const { plan, records, marks, answer } = evidence;
  const findings: Finding[] = [];
  const add = (offence: Offence, message: string, count = 1) => {
    if (count > 0) findings.push({ offence, count, message: `${plan.key} (${plan.kind}): ${message}` });
  };
  const [record] = records;
  const missing = record === undefined ? whyMissing(evidence) : whyWrong(evidence, record, round);
  if (missing !== undefined) add('lost', missing);
  const ids = new Set([...records.map(({ id }) => id), ...(answer?.ids ?? [])]);
  if (ids.size > 1) add('accepted twice', `one key made the executions ${[...ids].join(', ')}`, ids.size - 1);
  if (answer?.followed !== undefined && record?.final === true) {
    const exact = { ...round.allowance, chunksMayOverlap: false };
    const { missingBytes, doubledBytes, what } = compareLog(plan, record, answer.followed, exact);
    add('log bytes missing', `followed log: ${what}`, missingBytes);
    add('log bytes doubled', `followed log: ${what}`, doubledBytes);
  }
  const again = plan.retries ? 0 : startsOf(marks).length - 1;
  add('started again', 'its code was started again, though it may not be', again);
  return [
    ...findings,
    ...records.flatMap((one, i) => auditRecord(plan, one, round, i === 0)),
    ...auditMarks(plan, marks, round),
  ];
}

/** @returns why an execution that is not in the database is lost; undefined when nobody was told that it was accepted */
function whyMissing({ answer }: ExecutionEvidence): string | undefined {
  if (answer === undefined) return 'no call for it was answered';
  return `its caller was told of ${answer.ids.join(', ')}, and the database has none`;
}

function whyWrong({ plan, answer, marks }: ExecutionEvidence, record: ExecutionRecord, round: RoundEvidence) {
  const { id, state, outputJson } = record;
  if (answer === undefined) return `${id} is stored as ${nameIn(State, state)}, and no call for it was answered`;
  if (record.final && answer.state !== undefined && answer.state !== state) {
    return `${id}: the caller was told ${nameIn(State, answer.state)}, the database says ${nameIn(State, state)}`;
  }
  if (
    state === State.SUCCEEDED &&
    isHandler(plan) &&
    answer.outputJson !== undefined &&
    answer.outputJson !== outputJson
  ) {
    return `${id}: the caller was told ${answer.outputJson}, the database has ${outputJson}`;
  }
  return whyNotSucceeded(plan, record, marks, round);
}

function isLost({ errorCode }: { errorCode: number | null }): boolean {
  return isFailureOfAttempt(errorCode);
}

function duplicateStarts({ marks, repeats }: CodeRun): number {
  const starts = marks.filter(({ event }) => event === 'start').length;
  return Math.max(0, starts - repeats - 1);
}

function wasReadopted({ marks, record }: CodeRun, injectedAtMs: number): boolean {
  if (record?.state !== State.SUCCEEDED) return false;
  const running = startsOf(marks).find(({ startMs, endMs }) => startMs < injectedAtMs && endMs > injectedAtMs);
  return running !== undefined && marks.some(({ nonce, event }) => nonce === running.nonce && event === 'end');
}
