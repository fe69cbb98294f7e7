import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import type { ExecutionEvidence, ExecutionRecord, Mark, RoundEvidence } from './evidence.ts';
import { expectedResult } from './expected.ts';
import { compareLog, type LogDifference } from './log-difference.ts';

/** What must never be, by the name under which it is counted. */
export const OFFENCES = [
  'lost',
  'accepted twice',
  'log bytes missing',
  'log bytes doubled',
  'orphan processes',
  'orphan containers',
  'two at once',
  'started again',
] as const;
export type Offence = (typeof OFFENCES)[number];

export interface Finding {
  offence: Offence;
  /** Executions, bytes, processes: what the offence counts. */
  count: number;
  /** What was seen, with the key of the execution. */
  message: string;
}

export interface Verdict {
  fault: string;
  findings: Finding[];
  executions: number;
  /** Starts of code beyond the one of each attempt that had to be. */
  duplicateStarts: number;
  /** Ran when the fault began, and ended well in the same attempt. */
  readopted: number;
  /** Attempts that were lost and followed by another one. */
  rerun: number;
  recoveryMs: number | undefined;
}

/** Holds what was evidenced against what must be. Pure: the same evidence, the same verdict. */
export function audit(round: RoundEvidence): Verdict {
  const findings = round.executions.flatMap((evidence) => auditExecution(evidence, round));
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
  const sum = (count: (evidence: ExecutionEvidence) => number) =>
    round.executions.reduce((total, evidence) => total + count(evidence), 0);
  return {
    fault: round.fault,
    findings,
    executions: round.executions.length,
    duplicateStarts: sum(duplicateStarts),
    readopted: sum((evidence) => (wasReadopted(evidence, round.injectedAtMs) ? 1 : 0)),
    rerun: sum(({ records }) => records.flatMap(({ attempts }) => attempts).filter(isLost).length),
    recoveryMs: round.recoveryMs,
  };
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
  for (const { id, endings, attempts, state } of records) {
    if (endings.length > 1) add('accepted twice', `${id} was ended ${endings.length} times`, endings.length - 1);
    const successes = attempts.filter((attempt) => attempt.state === State.SUCCEEDED).length;
    const whole = successes + (state === State.SUCCEEDED ? 1 : 0);
    if (whole > 1) add('accepted twice', `${id} has the results of ${whole} attempts`, whole - 1);
  }
  const told = (log: string, { missingBytes, doubledBytes, what }: LogDifference) => {
    add('log bytes missing', `${log}: ${what}`, missingBytes);
    add('log bytes doubled', `${log}: ${what}`, doubledBytes);
  };
  if (record !== undefined) {
    const dropped = round.allowance.outputMayBeDropped;
    told('stored log', compareLog(plan, record, record.chunks, dropped));
    if (answer?.followed !== undefined && record.final)
      told('followed log', compareLog(plan, record, answer.followed, dropped));
  }
  add('two at once', 'two starts of its code ran at the same time', overlaps(marks));
  const again = plan.retries ? 0 : startsOf(marks).length - 1;
  add('started again', 'its code was started again, though it may not be', again);
  const late = new Set(marks.filter(({ timeMs }) => timeMs > round.quietAtMs).map(({ nonce }) => nonce));
  add('orphan processes', `code of it still ran when all was over (${[...late].join(', ')})`, late.size);
  return findings;
}

/** @returns why an execution that is not in the database is lost; undefined when nobody was told that it was accepted */
function whyMissing({ answer }: ExecutionEvidence): string | undefined {
  if (answer === undefined) return 'no call for it was answered';
  return `its caller was told of ${answer.ids.join(', ')}, and the database has none`;
}

function whyWrong({ plan, answer, marks }: ExecutionEvidence, record: ExecutionRecord, round: RoundEvidence) {
  const { id, state, final, errorCode, outputJson } = record;
  const name = nameIn(State, state);
  if (answer === undefined) return `${id} is stored as ${name}, and no call for it was answered`;
  if (!final) return `${id} is still ${name} in attempt ${record.attempt}`;
  if (answer.state !== undefined && answer.state !== state) {
    return `${id}: the caller was told ${nameIn(State, answer.state)}, the database says ${name}`;
  }
  if (state === State.SUCCEEDED) {
    if (plan.kind !== 'container' && !marks.some(({ event }) => event === 'end')) {
      return `${id} succeeded, but its code never came to its end`;
    }
    const isHandler = plan.kind !== 'command' && plan.kind !== 'container';
    if (isHandler && outputJson !== expectedResult(plan)) return `${id} has the result ${outputJson}`;
    if (answer.outputJson !== undefined && isHandler && answer.outputJson !== outputJson) {
      return `${id}: the caller was told ${answer.outputJson}, the database has ${outputJson}`;
    }
    return undefined;
  }
  if (round.allowance.attemptsMayFail && !plan.retries && isFailureOfAttempt(errorCode)) return undefined;
  return `${id} is ${name} in attempt ${record.attempt}: ${errorCode === null ? '' : nameIn(Code, errorCode)} ${record.errorMessage}`;
}

/** How the end of an attempt that a fault took is told. */
const FAILURES_OF_ATTEMPTS: readonly number[] = [
  Code.AGENT_LOST,
  Code.KILLED,
  Code.INTERNAL,
  Code.ENVIRONMENT_FAILED,
  Code.EXIT_NONZERO,
];

function isFailureOfAttempt(code: number | null): boolean {
  return code !== null && FAILURES_OF_ATTEMPTS.includes(code);
}

function isLost({ errorCode }: { errorCode: number | null }): boolean {
  return isFailureOfAttempt(errorCode);
}

function duplicateStarts({ marks }: ExecutionEvidence): number {
  const starts = marks.filter(({ event }) => event === 'start').length;
  // Those that failed by themselves had to be followed by another one.
  const raised = marks.filter(({ event }) => event === 'raised').length;
  return Math.max(0, starts - raised - 1);
}

function wasReadopted({ marks, records }: ExecutionEvidence, injectedAtMs: number): boolean {
  if (records[0]?.state !== State.SUCCEEDED) return false;
  const running = startsOf(marks).find(({ startMs, endMs }) => startMs < injectedAtMs && endMs > injectedAtMs);
  return running !== undefined && marks.some(({ nonce, event }) => nonce === running.nonce && event === 'end');
}

interface Start {
  nonce: string;
  startMs: number;
  /** Its last sign of life, daemons left out. */
  endMs: number;
}

function startsOf(marks: readonly Mark[]): Start[] {
  const starts = new Map<string, Start>();
  for (const { nonce, event, timeMs } of marks) {
    if (event === 'daemon') continue;
    const start = starts.get(nonce) ?? { nonce, startMs: timeMs, endMs: timeMs };
    starts.set(nonce, {
      nonce,
      startMs: Math.min(start.startMs, timeMs),
      endMs: Math.max(start.endMs, timeMs),
    });
  }
  return [...starts.values()].sort((a, b) => a.startMs - b.startMs);
}

/** How many starts began while an earlier one still showed signs of life. */
function overlaps(marks: readonly Mark[]): number {
  let until = Number.NEGATIVE_INFINITY;
  let found = 0;
  for (const { startMs, endMs } of startsOf(marks)) {
    if (startMs < until) found++;
    until = Math.max(until, endMs);
  }
  return found;
}

function nameIn(names: Readonly<Record<string, number>>, value: number): string {
  return Object.entries(names).find(([, number]) => number === value)?.[0] ?? String(value);
}
