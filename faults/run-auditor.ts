import { isDeepStrictEqual } from 'node:util';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { WorkflowRun_State as RunState } from '@harrier/shared/gen/workflow';
import { auditMarks, auditRecord, type CodeRun, nameIn, startsOf, whyNotSucceeded } from './code-auditor.ts';
import type { LogLine, Mark, NodeExecution, RoundEvidence, RunEvidence, RunRecord } from './evidence.ts';
import type { ExecutionPlan } from './execution-plan.ts';
import { expectedRunOutput, failsByItself } from './expected.ts';
import type { Finding, Offence } from './offences.ts';
import { nodesBefore, pathOf } from './workflow-plan.ts';

type Add = (offence: Offence, message: string, count?: number) => void;

/** A job of a run, with what is there of it. */
interface Job {
  plan: ExecutionPlan;
  path: string;
  nodeId: string;
  isReached: boolean;
  /** Tries, in their order; more than one of the same number is one too many. */
  tries: NodeExecution[];
  marks: readonly Mark[];
}

/** What must be of a run of a workflow, and of every execution of its nodes. */
export function auditRun(evidence: RunEvidence, round: RoundEvidence): Finding[] {
  const { plan, records, answer } = evidence;
  const findings: Finding[] = [];
  const add: Add = (offence, message, count = 1) => {
    if (count > 0) findings.push({ offence, count, message: `${plan.key} (workflow): ${message}` });
  };
  const [record] = records;
  const why = whyRunWrong(evidence, record);
  if (why !== undefined) add('lost', why);
  const ids = new Set([...records.map(({ id }) => id), ...(answer?.ids ?? [])]);
  add('accepted twice', `one key made the runs ${[...ids].join(', ')}`, ids.size - 1);
  for (const { id, endings } of records) {
    add('accepted twice', `run ${id} was ended ${endings.length} times`, endings.length - 1);
  }
  if (record?.final === true) auditRunLog(record, answer?.followed, add);
  const jobs = jobsIn(evidence);
  const known = new Set(jobs.flatMap(({ tries }) => tries));
  const strange = records.flatMap(({ executions }) => executions).filter((execution) => !known.has(execution));
  for (const { id, path } of strange) add('nodes twice', `${id} is of no node of the run ("${path}")`);
  for (const job of jobs) {
    auditTries(job, round, add);
    auditOrder(job, jobs, evidence, add);
    findings.push(...auditMarks(job.plan, job.marks, round));
    findings.push(...job.tries.flatMap((one) => auditRecord(job.plan, one, round)));
  }
  return findings;
}

/** Each execution of the nodes with what its code wrote. */
export function runsOfCode(evidence: RunEvidence): CodeRun[] {
  return jobsIn(evidence).flatMap(({ plan, tries, marks }) =>
    tries.map((record) => ({ plan, record, marks: marksIn(marks, record.id), repeats: 0 })),
  );
}

function whyRunWrong({ plan, answer }: RunEvidence, record: RunRecord | undefined): string | undefined {
  if (answer === undefined) return 'no call for the run was answered';
  if (record === undefined) return `its caller was told of ${answer.ids.join(', ')}, and the database has none`;
  const { id, state, final, outputJson } = record;
  const name = nameIn(RunState, state);
  if (!final) return `run ${id} is still ${name}`;
  if (answer.state !== undefined && answer.state !== state) {
    return `run ${id}: the caller was told ${nameIn(RunState, answer.state)}, the database says ${name}`;
  }
  if (state !== RunState.SUCCEEDED) return `run ${id} is ${name}: ${record.errorMessage}`;
  if (answer.outputJson !== undefined && answer.outputJson !== outputJson) {
    return `run ${id}: the caller was told ${answer.outputJson}, the database has ${outputJson}`;
  }
  const isRight = outputJson !== null && isDeepStrictEqual(JSON.parse(outputJson), expectedRunOutput(plan));
  return isRight ? undefined : `run ${id} has the output ${outputJson}`;
}

/** Its lines are numbered from 1 without a gap, and whoever followed it was told each of them once. */
function auditRunLog({ id, log }: RunRecord, followed: readonly LogLine[] | undefined, add: Add): void {
  const compare = (what: string, lines: readonly LogLine[], messages: readonly (string | undefined)[]) => {
    const seen = new Set<number>();
    let wrong = 0;
    for (const { sequence, message } of lines) {
      add('log bytes doubled', `line ${sequence} of the ${what} of run ${id} comes twice`, seen.has(sequence) ? 1 : 0);
      seen.add(sequence);
      if (messages[sequence - 1] !== undefined && messages[sequence - 1] !== message) wrong++;
    }
    const missing = messages.filter((_, i) => !seen.has(i + 1)).length;
    add(
      'log bytes missing',
      `${missing} lines of the ${what} of run ${id} are missing, ${wrong} are wrong`,
      missing + wrong,
    );
  };
  const length = Math.max(0, ...log.map(({ sequence }) => sequence));
  compare(
    'log',
    log,
    Array.from({ length }, () => undefined),
  );
  if (followed === undefined) return;
  const messages: string[] = [];
  for (const { sequence, message } of log) messages[sequence - 1] = message;
  compare('followed log', followed, messages);
}

/** One execution a try, and a next try only after one that failed by itself. */
function auditTries({ plan, path, isReached, tries, marks }: Job, round: RoundEvidence, add: Add): void {
  const ran = new Set([...tries.map(({ id }) => id), ...marks.map(({ executionId }) => executionId)]);
  if (!isReached) {
    add('nodes out of order', `${path} was run, though nothing leads to it`, ran.size);
    return;
  }
  const unknown = [...ran].filter((id) => !tries.some((one) => one.id === id));
  add('nodes twice', `code of ${path} ran in ${unknown.join(', ')}, of which the run knows nothing`, unknown.length);
  const byNumber = Map.groupBy(tries, (one) => one.tries);
  for (const [number, executions] of byNumber) {
    const ids = executions.map(({ id }) => id).join(', ');
    add('nodes twice', `try ${number} of ${path} has the executions ${ids}`, executions.length - 1);
  }
  for (let number = 1; number <= Math.max(1, ...byNumber.keys()); number++) {
    const [execution] = byNumber.get(number) ?? [];
    if (execution === undefined) {
      add('lost', `try ${number} of ${path} has no execution`);
      continue;
    }
    const hasNext = byNumber.has(number + 1);
    if (failsByItself(plan, execution.id)) {
      const why = whyNotFailed(execution, marksIn(marks, execution.id));
      if (why !== undefined) add('lost', why);
      if (!hasNext) add('lost', `${path} was not tried again after try ${number}`);
      continue;
    }
    const why = whyNotSucceeded(plan, execution, marksIn(marks, execution.id), round);
    if (why !== undefined) add('lost', why);
    if (hasNext) add('nodes twice', `${path} was tried again after try ${number}, which did not fail by itself`);
  }
}

function whyNotFailed({ id, state, errorCode }: NodeExecution, marks: readonly Mark[]): string | undefined {
  if (state !== State.FAILED || errorCode !== Code.HANDLER_ERROR) {
    return `${id} was to fail, and is ${nameIn(State, state)}`;
  }
  return marks.some(({ event }) => event === 'raised') ? undefined : `${id} failed, but its code did not`;
}

/** By the witness: no code of a node starts before all that it waits for is over. */
function auditOrder(job: Job, jobs: readonly Job[], { plan, answer }: RunEvidence, add: Add): void {
  const [first] = startsOf(job.marks);
  if (first === undefined || !job.isReached) return;
  for (const before of nodesBefore(plan, job.nodeId)) {
    if (before.kind === 'signal') {
      const approvedAtMs = Math.min(Number.POSITIVE_INFINITY, ...(answer?.approvedAtMs ?? []));
      if (first.startMs < approvedAtMs)
        add('nodes out of order', `${job.path} started before ${before.id} was approved`);
    }
    for (const other of jobs.filter(({ nodeId }) => nodeId === before.id)) {
      const ends = startsOf(other.marks).map(({ endMs }) => endMs);
      const isOver = other.marks.some(({ event }) => event === 'end') && Math.max(...ends) <= first.startMs;
      if (!isOver) add('nodes out of order', `${job.path} started before ${other.path} was over`);
    }
  }
}

function jobsIn({ plan, records, marks }: RunEvidence): Job[] {
  const executions = records.flatMap((record) => record.executions);
  return plan.nodes.flatMap(({ id, jobs, isReached }) =>
    jobs.map((job) => {
      const path = pathOf(plan, job);
      const tries = executions.filter((one) => one.path === path).sort((a, b) => a.tries - b.tries);
      return { plan: job, path, nodeId: id, isReached, tries, marks: marks.get(job.key) ?? [] };
    }),
  );
}

function marksIn(marks: readonly Mark[], executionId: string): Mark[] {
  return marks.filter((mark) => mark.executionId === executionId);
}
