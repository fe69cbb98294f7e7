import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { audit } from '../../faults/auditor.ts';
import type { ExecutionEvidence, Mark, RoundEvidence, StoredChunk } from '../../faults/evidence.ts';
import type { ExecutionPlan } from '../../faults/execution-plan.ts';
import { expectedOutput, expectedResult } from '../../faults/expected.ts';
import { HARMLESS, TAKES_ATTEMPTS } from '../../faults/faults/fault.ts';
import { OFFENCES } from '../../faults/offences.ts';
import { isClean, neverStruck, renderTable, summarize } from '../../faults/report.ts';

const PLAN: ExecutionPlan = {
  ...{ key: '7-1-1', kind: 'inline', way: 'follow', arrivalMs: 0, runMs: 100, lines: 3, lineBytes: 20 },
  ...{ failures: 0, retries: true, isFlaky: false, daemon: false },
};
const OUTPUT = expectedOutput(PLAN);
const ID = '01900000-0000-7000-8000-000000000001';

const chunk = (data: Buffer, offset = 0, attempt = 1): StoredChunk => ({ attempt, stream: 'stdout', offset, data });
const mark = (event: Mark['event'], timeMs: number, nonce = 'n1', attempt = 1): Mark => ({
  attempt,
  executionId: ID,
  nonce,
  event,
  timeMs,
});

/** An execution that ran without anything happening to it. */
function sound(): ExecutionEvidence & { records: [ExecutionEvidence['records'][0]] } {
  return {
    plan: PLAN,
    answer: { ids: [ID], state: State.SUCCEEDED, outputJson: expectedResult(PLAN), followed: [chunk(OUTPUT)] },
    records: [
      {
        ...{ id: ID, state: State.SUCCEEDED, final: true, attempt: 1, errorCode: null, errorMessage: null },
        ...{ outputJson: expectedResult(PLAN), attempts: [] },
        endings: [{ attempt: 1, state: State.SUCCEEDED }],
        chunks: [chunk(OUTPUT.subarray(0, 10)), chunk(OUTPUT.subarray(10), 10)],
        read: [chunk(OUTPUT)],
      },
    ],
    marks: [mark('start', 10), mark('alive', 60), mark('end', 110)],
  };
}

function round(execution: ExecutionEvidence, fields: Partial<RoundEvidence> = {}): RoundEvidence {
  return {
    ...{ fault: 'agent-kill', allowance: HARMLESS, hasStruck: true, injectedAtMs: 50 },
    ...{ quietAtMs: 1000, executions: [execution], runs: [], schedules: [], orphanProcesses: [], orphanContainers: [] },
    ...{ recoveryMs: 300, endedByThemselves: [] },
    ...fields,
  };
}

/** What is counted, by offence. */
function counts(evidence: RoundEvidence): Record<string, number> {
  const found: Record<string, number> = {};
  for (const { offence, count } of audit(evidence).findings) found[offence] = (found[offence] ?? 0) + count;
  return found;
}

/** A change to the sound execution. */
function spoilt(change: (evidence: ReturnType<typeof sound>) => void, fields: Partial<RoundEvidence> = {}) {
  const evidence = sound();
  change(evidence);
  return counts(round(evidence, fields));
}

const MAY_FAIL = { allowance: TAKES_ATTEMPTS };
const failWith = (errorCode: Code) => (evidence: ReturnType<typeof sound>) => {
  const [record] = evidence.records;
  Object.assign(record, { state: State.FAILED, outputJson: null, errorCode, errorMessage: 'the agent was lost' });
  record.chunks = [chunk(OUTPUT.subarray(0, 10))];
  record.read = record.chunks;
  Object.assign(evidence.answer ?? {}, { state: State.FAILED, outputJson: undefined, followed: undefined });
};

test('an execution that ran in peace is nobody’s fault, and counts as re-adopted when it ran through the fault', () => {
  expect(audit(round(sound()))).toMatchObject({ findings: [], duplicateStarts: 0, readopted: 1, rerun: 0 });
  expect(audit(round(sound(), { injectedAtMs: 500 })).readopted).toBe(0);
});

test('a loss is found, however it shows', () => {
  const lost = { lost: 1 };
  expect(spoilt((evidence) => evidence.records.splice(0))).toEqual(lost);
  expect(spoilt((evidence) => Object.assign(evidence, { answer: undefined }))).toEqual(lost);
  expect(
    spoilt(({ records: [record], answer }) => {
      Object.assign(record, { state: State.PENDING, final: false, endings: [] });
      Object.assign(answer ?? {}, { state: undefined, followed: undefined });
    }),
  ).toEqual(lost);
  expect(spoilt(({ records: [record] }) => Object.assign(record, { outputJson: '{"key":"another"}' }))).toEqual(lost);
  expect(spoilt(({ answer }) => Object.assign(answer ?? {}, { state: State.FAILED }))).toEqual(lost);
  expect(spoilt((evidence) => evidence.marks.pop())).toEqual(lost);
  expect(counts(round(sound(), { recoveryMs: undefined }))).toEqual(lost);
  expect(counts(round(sound(), { endedByThemselves: ['replica-1 ended by itself'] }))).toEqual(lost);
});

test('a failure is a loss unless the fault may take attempts and the execution may not be tried again', () => {
  const once = (evidence: ReturnType<typeof sound>) =>
    Object.assign(evidence, { plan: { ...PLAN, retries: false, way: 'create' } });
  const lost = failWith(Code.AGENT_LOST);
  expect(spoilt(lost, MAY_FAIL)).toEqual({ lost: 1 });
  expect(spoilt((evidence) => lost(once(evidence)))).toEqual({ lost: 1 });
  expect(spoilt((evidence) => lost(once(evidence)), MAY_FAIL)).toEqual({});
  expect(spoilt((evidence) => failWith(Code.OUTPUT_INVALID)(once(evidence)), MAY_FAIL)).toEqual({ lost: 1 });
});

test('what was accepted twice is found: two executions of one key, two ends, the results of two attempts', () => {
  const twice = { 'accepted twice': 1 };
  expect(spoilt(({ records }) => records.push({ ...sound().records[0], id: `${ID.slice(0, -1)}2` }))).toEqual(twice);
  expect(spoilt(({ answer }) => answer?.ids.push(`${ID.slice(0, -1)}2`))).toEqual(twice);
  expect(spoilt(({ records: [record] }) => record.endings.push({ attempt: 1, state: State.FAILED }))).toEqual(twice);
  const earlier = { attempt: 1, state: State.SUCCEEDED, errorCode: null };
  expect(
    spoilt(({ records: [record], answer }) => {
      record.attempts.push(earlier);
      record.attempt = 2;
      record.chunks = [chunk(OUTPUT, 0, 2)];
      record.read = record.chunks;
      Object.assign(answer ?? {}, { followed: undefined });
    }),
  ).toEqual(twice);
});

test('every missing and every doubled byte of a log is counted: stored, followed and as it is read', () => {
  expect(spoilt(({ records: [record] }) => record.chunks.pop())).toEqual({ 'log bytes missing': OUTPUT.length - 10 });
  expect(spoilt(({ records: [record] }) => record.chunks.push(chunk(OUTPUT.subarray(5, 10), 5)))).toEqual({
    'log bytes doubled': 5,
  });
  expect(spoilt(({ answer }) => answer?.followed?.push(chunk(OUTPUT.subarray(0, 4), OUTPUT.length)))).toEqual({
    'log bytes doubled': 4,
  });
  expect(spoilt(({ records: [record] }) => record.read?.push(chunk(OUTPUT.subarray(5, 9), 5)))).toEqual({
    'log bytes doubled': 4,
  });
  expect(spoilt(({ records: [record] }) => Object.assign(record, { read: [chunk(OUTPUT.subarray(0, 9))] }))).toEqual({
    'log bytes missing': OUTPUT.length - 9,
  });
  expect(spoilt(({ records: [record] }) => Object.assign(record, { read: undefined }))).toEqual({
    'log bytes missing': 1,
  });
  const wrong = Buffer.from(OUTPUT);
  wrong[3] = 0;
  expect(spoilt(({ records: [record] }) => Object.assign(record, { chunks: [chunk(wrong)] }))).toEqual({
    'log bytes missing': 1,
  });
  expect(spoilt(({ records: [record] }) => Object.assign(record, { chunks: [chunk(OUTPUT.subarray(8), 8)] }))).toEqual({
    // The gap, and what follows it in the wrong place.
    'log bytes missing': expect.any(Number),
  });
});

test('a late write may be stored beside another one where a fault holds it back, if both agree', () => {
  const allowance = { ...HARMLESS, chunksMayOverlap: true };
  const late = (data: Buffer) => (evidence: ReturnType<typeof sound>) => {
    evidence.records[0].chunks.push(chunk(data, 5));
  };
  expect(spoilt(late(OUTPUT.subarray(5)), { allowance })).toEqual({});
  const evidence = sound();
  late(OUTPUT.subarray(5))(evidence);
  expect(audit(round(evidence, { allowance })).overlapBytes).toBe(OUTPUT.length - 5);
  expect(audit(round(sound(), { allowance })).overlapBytes).toBe(0);
  const wrong = Buffer.from(OUTPUT.subarray(5));
  wrong[2] = 0;
  expect(Object.keys(spoilt(late(wrong), { allowance }))).toEqual(['log bytes doubled']);
  const read = (evidence: ReturnType<typeof sound>) => {
    evidence.answer?.followed?.push(chunk(OUTPUT.subarray(5, 9), 5));
    evidence.records[0].read?.push(chunk(OUTPUT.subarray(5, 8), 5));
  };
  expect(spoilt(read, { allowance })).toEqual({ 'log bytes doubled': 7 });
});

test('output may end in the line that says that it was dropped only where the fault may cost output', () => {
  const drop = ({ records: [record], answer }: ReturnType<typeof sound>) => {
    const line = "\n[harrier: stdout dropped after 21 bytes: the agent's spool is full]\n";
    record.chunks = [chunk(Buffer.concat([OUTPUT.subarray(0, 21), Buffer.from(line)]))];
    record.read = record.chunks;
    Object.assign(answer ?? {}, { followed: undefined });
  };
  expect(spoilt(drop, { allowance: { ...TAKES_ATTEMPTS, outputMayBeDropped: true } })).toEqual({});
  expect(Object.keys(spoilt(drop))).toContain('log bytes missing');
});

test('orphans are found: processes and containers that stayed, and code that lives when all is over', () => {
  expect(counts(round(sound(), { orphanProcesses: ['12 python3'], orphanContainers: ['call-1'] }))).toEqual({
    'orphan processes': 1,
    'orphan containers': 1,
  });
  expect(spoilt(({ marks }) => marks.push(mark('daemon', 1500), mark('daemon', 1700)))).toEqual({
    'orphan processes': 1,
  });
});

test('two starts of one execution at the same time are found; one after the other is a duplicate start', () => {
  const again = (startMs: number, evidence: ExecutionEvidence) =>
    evidence.marks.push(mark('start', startMs, 'n2', 2), mark('end', startMs + 50, 'n2', 2));
  expect(spoilt((evidence) => again(90, evidence))).toEqual({ 'two at once': 1 });
  const evidence = sound();
  again(200, evidence);
  expect(audit(round(evidence))).toMatchObject({ findings: [], duplicateStarts: 1 });
  const once = { ...evidence, plan: { ...PLAN, retries: false } };
  expect(counts(round(once))).toEqual({ 'started again': 1 });
});

test('the report adds the rounds of a fault up, and is clean only without a single offence', () => {
  const good = audit(round(sound()));
  const bad = audit(round(sound(), { orphanContainers: ['a', 'b'] }));
  const summaries = summarize([good, { ...good, recoveryMs: 500 }, { ...good, fault: 'replica-kill' }]);
  expect(summaries).toMatchObject([
    { fault: 'agent-kill', injections: 2, readopted: 2, recoveryP50Ms: 300, recoveryP99Ms: 500 },
    { fault: 'replica-kill', injections: 1 },
  ]);
  expect(isClean(summaries)).toBe(true);
  const spoiltSummary = summarize([good, bad]);
  expect(isClean(spoiltSummary)).toBe(false);
  expect(renderTable(spoiltSummary)).toMatch(/^\| agent-kill \|.* 2 \|/m);
  for (const offence of OFFENCES) expect(renderTable(summaries)).toContain(offence);
});

test('a round in which there was nothing to hit is no injection, and a fault that never hit anything is named', () => {
  const struck = audit(round(sound()));
  const missed = audit(round(sound(), { hasStruck: false, recoveryMs: 1 }));
  const summaries = summarize([struck, missed, { ...missed, fault: 'zygote-kill' }]);
  expect(summaries).toMatchObject([
    { injections: 1, recoveryP50Ms: 300 },
    { injections: 0, recoveryP50Ms: undefined },
  ]);
  expect(neverStruck(summaries)).toEqual(['zygote-kill']);
});
