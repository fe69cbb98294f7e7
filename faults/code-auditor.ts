import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import type { ExecutionRecord, Mark, RoundEvidence } from './evidence.ts';
import type { ExecutionPlan } from './execution-plan.ts';
import { expectedResult } from './expected.ts';
import { compareLog, type LogDifference } from './log-difference.ts';
import type { Finding, Offence } from './offences.ts';

/** One execution, and what its code wrote. */
export interface CodeRun {
  plan: ExecutionPlan;
  record: ExecutionRecord | undefined;
  marks: readonly Mark[];
  /** Starts that failed by themselves within it, so that there had to be another one. */
  repeats: number;
}

/** What must be of an execution that the database has, whoever asked for it. @param withLog its log is held against the plan too */
export function auditRecord(
  plan: ExecutionPlan,
  record: ExecutionRecord,
  round: RoundEvidence,
  withLog = true,
): Finding[] {
  const { id, endings, attempts, state } = record;
  const findings: Finding[] = [];
  const add = (offence: Offence, message: string, count = 1) => {
    if (count > 0) findings.push({ offence, count, message: `${plan.key} (${plan.kind}): ${message}` });
  };
  if (endings.length > 1) add('accepted twice', `${id} was ended ${endings.length} times`, endings.length - 1);
  const successes = attempts.filter((attempt) => attempt.state === State.SUCCEEDED).length;
  const whole = successes + (state === State.SUCCEEDED ? 1 : 0);
  if (whole > 1) add('accepted twice', `${id} has the results of ${whole} attempts`, whole - 1);
  if (!withLog) return findings;
  const told = (log: string, { missingBytes, doubledBytes, what }: LogDifference) => {
    add('log bytes missing', `${log}: ${what}`, missingBytes);
    add('log bytes doubled', `${log}: ${what}`, doubledBytes);
  };
  const { allowance } = round;
  told('stored log', compareLog(plan, record, record.chunks, allowance));
  if (!record.final) return findings;
  // However it is stored, whoever reads gets each byte once.
  if (record.read === undefined) add('log bytes missing', `the log of ${id} cannot be read`);
  else told('log as it is read', compareLog(plan, record, record.read, { ...allowance, chunksMayOverlap: false }));
  return findings;
}

/** What must be of code, whichever executions it ran in. */
export function auditMarks(plan: ExecutionPlan, marks: readonly Mark[], round: RoundEvidence): Finding[] {
  const about = (message: string) => `${plan.key} (${plan.kind}): ${message}`;
  const findings: Finding[] = [];
  const atOnce = overlaps(marks);
  if (atOnce > 0) {
    const message = about('two starts of its code ran at the same time');
    findings.push({ offence: 'two at once', count: atOnce, message });
  }
  const late = new Set(marks.filter(({ timeMs }) => timeMs > round.quietAtMs).map(({ nonce }) => nonce));
  if (late.size > 0) {
    const message = about(`code of it still ran when all was over (${[...late].join(', ')})`);
    findings.push({ offence: 'orphan processes', count: late.size, message });
  }
  return findings;
}

/** @returns why an execution has not done what it was to do */
export function whyNotSucceeded(
  plan: ExecutionPlan,
  record: ExecutionRecord,
  marks: readonly Mark[],
  round: RoundEvidence,
): string | undefined {
  const { id, state, final, errorCode, outputJson } = record;
  const name = nameIn(State, state);
  if (!final) return `${id} is still ${name} in attempt ${record.attempt}`;
  if (state === State.SUCCEEDED) {
    if (plan.kind !== 'container' && !marks.some(({ event }) => event === 'end')) {
      return `${id} succeeded, but its code never came to its end`;
    }
    return isHandler(plan) && outputJson !== expectedResult(plan) ? `${id} has the result ${outputJson}` : undefined;
  }
  if (round.allowance.attemptsMayFail && !plan.retries && isFailureOfAttempt(errorCode)) return undefined;
  return `${id} is ${name} in attempt ${record.attempt}: ${errorCode === null ? '' : nameIn(Code, errorCode)} ${record.errorMessage}`;
}

/** Whether it has a result. */
export function isHandler({ kind }: ExecutionPlan): boolean {
  return kind !== 'command' && kind !== 'container';
}

/** How the end of an attempt that a fault took is told. */
const FAILURES_OF_ATTEMPTS: readonly number[] = [
  Code.AGENT_LOST,
  Code.KILLED,
  Code.INTERNAL,
  Code.ENVIRONMENT_FAILED,
  Code.EXIT_NONZERO,
];

/** Whether an attempt was taken by a fault. */
export function isFailureOfAttempt(code: number | null): boolean {
  return code !== null && FAILURES_OF_ATTEMPTS.includes(code);
}

interface Start {
  nonce: string;
  startMs: number;
  /** Its last sign of life, daemons left out. */
  endMs: number;
}

/** In the order in which they began. */
export function startsOf(marks: readonly Mark[]): Start[] {
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

export function nameIn(names: Readonly<Record<string, number>>, value: number): string {
  return Object.entries(names).find(([, number]) => number === value)?.[0] ?? String(value);
}
