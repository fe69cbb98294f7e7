import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { WorkflowRun_State as RunState } from '@harrier/shared/gen/workflow';
import { expect, test } from 'vitest';
import { audit } from '../../faults/auditor.ts';
import type { Mark, NodeExecution, RoundEvidence, RunEvidence, RunRecord } from '../../faults/evidence.ts';
import type { ExecutionPlan } from '../../faults/execution-plan.ts';
import { expectedResult, expectedRunOutput } from '../../faults/expected.ts';
import { HARMLESS, TAKES_ATTEMPTS } from '../../faults/faults/fault.ts';
import type { NodePlan, WorkflowPlan } from '../../faults/workflow-plan.ts';

const KEY = '7-1-w1';
const RUN = '01900000-0000-7000-8000-0000000000ff';
/** An id whose last digit decides whether a flaky execution fails. */
const id = (last: string) => `01900000-0000-7000-8000-0000000000${last}`;

const job = (path: string, isFlaky = false): ExecutionPlan => ({
  ...{ key: `${KEY}.${path}`, kind: 'inline', way: 'node', arrivalMs: 0, runMs: 10, lines: 0, lineBytes: 20 },
  ...{ failures: 0, retries: true, isFlaky, daemon: false },
});
const node = (id: string, jobs: ExecutionPlan[], kind: NodePlan['kind'] = 'run'): NodePlan => ({
  ...{ id, kind, jobs, isReached: true, concurrency: 0, waitMs: 0 },
});

/** `a`, which fails at first; a signal; a map over two; a branch that is not taken. */
function plan(): WorkflowPlan {
  const nodes = [
    node('a', [job('a', true)]),
    node('s', [], 'signal'),
    node('m', [job('m[0]'), job('m[1]')], 'map'),
    { ...node('no', [job('no')]), isReached: false },
  ];
  const edges = [
    { from: 'a', to: 's' },
    { from: 's', to: 'm' },
    { from: 'a', to: 'no', when: 'false' },
  ];
  return { key: KEY, way: 'follow', arrivalMs: 0, nodes, edges };
}

function execution(path: string, tries: number, executionId: string, fails = false): NodeExecution {
  const state = fails ? State.FAILED : State.SUCCEEDED;
  return {
    ...{ id: executionId, runId: RUN, path, tries, state, final: true, attempt: 1, attempts: [], chunks: [], read: [] },
    errorCode: fails ? Code.HANDLER_ERROR : null,
    errorMessage: fails ? 'this attempt was meant to fail' : null,
    outputJson: fails ? null : expectedResult(job(path)),
    endings: [{ attempt: 1, state }],
  };
}

const ran = (executionId: string, startMs: number, end: Mark['event'] = 'end'): Mark[] =>
  (['start', 'alive', end] as const).map((event, i) => ({
    ...{ attempt: 1, executionId, nonce: `${executionId}-${startMs}`, event, timeMs: startMs + 10 * i },
  }));

type Sound = RunEvidence & { records: [RunRecord]; marks: Map<string, Mark[]> };

/** A run to which nothing happened. */
function sound(): Sound {
  const outputJson = JSON.stringify(expectedRunOutput(plan()));
  const log = [1, 2, 3].map((sequence) => ({ sequence, message: `line ${sequence}` }));
  return {
    plan: plan(),
    answer: { ids: [RUN], state: RunState.SUCCEEDED, outputJson, followed: [...log], approvedAtMs: [200] },
    records: [
      {
        ...{ id: RUN, state: RunState.SUCCEEDED, final: true, errorMessage: null, outputJson, log },
        endings: [RunState.SUCCEEDED],
        executions: [
          execution('a', 1, id('01'), true),
          execution('a', 2, id('0a')),
          execution('m[0]', 1, id('10')),
          execution('m[1]', 1, id('11')),
        ],
      },
    ],
    marks: new Map([
      [`${KEY}.a`, [...ran(id('01'), 10, 'raised'), ...ran(id('0a'), 100)]],
      [`${KEY}.m[0]`, ran(id('10'), 300)],
      [`${KEY}.m[1]`, ran(id('11'), 305)],
    ]),
  };
}

function round(run: RunEvidence, allowance = HARMLESS): RoundEvidence {
  return {
    ...{ fault: 'replica-kill', allowance, injectedAtMs: 310, quietAtMs: 1000, executions: [], runs: [run] },
    ...{ schedules: [], orphanProcesses: [], orphanContainers: [], recoveryMs: 300, endedByThemselves: [] },
    hasStruck: true,
  };
}

/** What is counted, by offence, after a change to the sound run. */
function spoilt(change: (evidence: Sound) => void): Record<string, number> {
  const evidence = sound();
  change(evidence);
  const found: Record<string, number> = {};
  for (const { offence, count } of audit(round(evidence)).findings) found[offence] = (found[offence] ?? 0) + count;
  return found;
}

const marksOf = ({ marks }: Sound, path: string): Mark[] => marks.get(`${KEY}.${path}`) ?? [];

test('a run that went right is nobody’s fault; its executions are counted as those that it needs', () => {
  expect(audit(round(sound()))).toMatchObject({
    ...{ findings: [], executions: 3, runs: 1, duplicateStarts: 0, readopted: 2, rerun: 0 },
  });
});

test('a lost run is found, however it shows', () => {
  const lost = { lost: 1 };
  expect(spoilt((evidence) => Object.assign(evidence, { answer: undefined }))).toMatchObject({ lost: 1 });
  expect(
    spoilt(({ records: [record], answer }) => {
      Object.assign(record, { state: RunState.RUNNING, final: false, endings: [] });
      Object.assign(answer ?? {}, { state: undefined, outputJson: undefined });
    }),
  ).toEqual(lost);
  expect(
    spoilt(({ records: [record], answer }) => {
      Object.assign(record, { state: RunState.FAILED, endings: [RunState.FAILED] });
      Object.assign(answer ?? {}, { state: RunState.FAILED });
    }),
  ).toEqual(lost);
  expect(spoilt(({ answer }) => Object.assign(answer ?? {}, { state: RunState.FAILED }))).toEqual(lost);
  const wrong = JSON.stringify({ ...expectedRunOutput(plan()), m: [] });
  expect(
    spoilt(({ records: [record], answer }) => {
      Object.assign(record, { outputJson: wrong });
      Object.assign(answer ?? {}, { outputJson: wrong });
    }),
  ).toEqual(lost);
  expect(spoilt(({ answer }) => Object.assign(answer ?? {}, { outputJson: wrong }))).toEqual(lost);
  const evidence = { ...sound(), records: [] };
  expect(audit(round(evidence, TAKES_ATTEMPTS)).findings).toContainEqual(expect.objectContaining({ offence: 'lost' }));
});

test('a node of which something is missing is a loss: its execution, its end, its next try, its failure', () => {
  expect(
    spoilt((evidence) => {
      evidence.records[0].executions.pop();
      evidence.marks.delete(`${KEY}.m[1]`);
    }),
  ).toEqual({ lost: 1 });
  expect(spoilt((evidence) => marksOf(evidence, 'm[1]').pop())).toEqual({ lost: 1 });
  expect(
    spoilt((evidence) => {
      evidence.records[0].executions.splice(1, 1);
      marksOf(evidence, 'a').splice(3);
    }),
  ).toEqual({ lost: 1, 'nodes out of order': 2 });
  expect(
    spoilt((evidence) => {
      marksOf(evidence, 'a').splice(2, 1);
    }),
  ).toEqual({ lost: 1 });
  expect(
    spoilt(({ records: [record] }) => Object.assign(record.executions[0] ?? {}, { errorCode: Code.AGENT_LOST })),
  ).toEqual({ lost: 1 });
});

test('what was accepted twice is found: two runs of one key, two ends of one run', () => {
  const twice = { 'accepted twice': 1 };
  expect(spoilt(({ answer }) => answer?.ids.push(id('fe')))).toEqual(twice);
  expect(spoilt(({ records }) => records.push({ ...records[0], id: id('fe'), executions: [] }))).toEqual(twice);
  expect(spoilt(({ records: [record] }) => record.endings.push(RunState.FAILED))).toEqual(twice);
  expect(spoilt(({ records: [record] }) => record.executions[2]?.endings.push({ attempt: 1, state: 5 }))).toEqual(
    twice,
  );
});

test('a node that was run by two executions is found, whoever tells of it', () => {
  const twice = { 'nodes twice': 1 };
  // The same try in another execution.
  expect(spoilt(({ records: [record] }) => record.executions.push(execution('m[0]', 1, id('12'))))).toEqual(twice);
  // A try after one that succeeded.
  expect(
    spoilt((evidence) => {
      evidence.records[0].executions.push(execution('m[0]', 2, id('12')));
      marksOf(evidence, 'm[0]').push(...ran(id('12'), 400));
    }),
  ).toEqual(twice);
  // One that only the witness knows.
  expect(spoilt((evidence) => marksOf(evidence, 'm[0]').push(...ran(id('12'), 400)))).toEqual(twice);
  // One of the run that is of none of its nodes.
  expect(spoilt(({ records: [record] }) => record.executions.push(execution('x', 1, id('12'))))).toEqual(twice);
  // Both alive at the same time.
  expect(
    spoilt((evidence) => {
      evidence.records[0].executions.push(execution('m[0]', 1, id('12')));
      marksOf(evidence, 'm[0]').push(...ran(id('12'), 305));
    }),
  ).toEqual({ ...twice, 'two at once': 1 });
});

test('an attempt of the same execution that had to be made again is a duplicate start, and not a node that ran twice', () => {
  const evidence = sound();
  marksOf(evidence, 'm[0]').push(...ran(id('10'), 500));
  evidence.records[0].executions[2]?.attempts.push({ attempt: 1, state: State.FAILED, errorCode: Code.AGENT_LOST });
  expect(audit(round(evidence))).toMatchObject({ findings: [], duplicateStarts: 1, rerun: 1 });
});

test('a node that started before what it waits for was over is found', () => {
  const early = { 'nodes out of order': 1 };
  const at = (startMs: number) => (evidence: Sound) => {
    evidence.marks.set(`${KEY}.m[0]`, ran(id('10'), startMs));
  };
  // After its predecessor, but before the signal; then before both.
  expect(spoilt(at(150))).toEqual(early);
  expect(spoilt(at(110))).toEqual({ 'nodes out of order': 2 });
  expect(spoilt(({ answer }) => Object.assign(answer ?? {}, { approvedAtMs: [] }))).toEqual({
    'nodes out of order': 2,
  });
});

test('a node to which nothing leads is found when it was run', () => {
  const early = { 'nodes out of order': 1 };
  expect(spoilt((evidence) => evidence.marks.set(`${KEY}.no`, ran(id('13'), 300)))).toEqual(early);
  expect(spoilt(({ records: [record] }) => record.executions.push(execution('no', 1, id('13'))))).toEqual(early);
});

test('lines of a run’s log that are missing, doubled or told otherwise are found', () => {
  expect(spoilt(({ records: [record] }) => record.log.splice(0, 1))).toEqual({ 'log bytes missing': 1 });
  expect(spoilt(({ answer }) => answer?.followed?.pop())).toEqual({ 'log bytes missing': 1 });
  expect(spoilt(({ answer }) => answer?.followed?.push({ sequence: 3, message: 'line 3' }))).toEqual({
    'log bytes doubled': 1,
  });
  expect(spoilt(({ answer }) => answer?.followed?.splice(0, 1, { sequence: 1, message: 'another' }))).toEqual({
    'log bytes missing': 1,
  });
});

test('what must be of every execution must be of those of nodes: logs, results, and that nothing is left', () => {
  expect(spoilt(({ records: [record] }) => Object.assign(record.executions[2] ?? {}, { outputJson: '{}' }))).toEqual({
    lost: 1,
  });
  expect(
    spoilt(({ records: [record] }) =>
      record.executions[2]?.chunks.push({ attempt: 1, stream: 'stdout', offset: 0, data: Buffer.from('more') }),
    ),
  ).toEqual({ 'log bytes doubled': 4 });
  const late = { attempt: 1, executionId: id('10'), nonce: 'd', event: 'daemon', timeMs: 1500 } as const;
  expect(spoilt((evidence) => marksOf(evidence, 'm[0]').push(late))).toEqual({ 'orphan processes': 1 });
});
