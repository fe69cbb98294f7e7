import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { expect, test } from 'vitest';
import { type EndedJob, slurmOutcome } from './slurm-outcome.ts';

const job = (state: string, fields: object = {}) => ({ job: { state, reason: '', restarts: 0, ...fields } });

function outcomeOf(given: Partial<EndedJob>) {
  return slurmOutcome({ jobId: '7', ending: undefined, node: 'n1', ...given });
}

test.each([
  ['TIMEOUT', 'timed_out', 'TIMEOUT', 'Slurm ended job 7 on n1 at its time limit (TIMEOUT)'],
  ['DEADLINE', 'timed_out', 'TIMEOUT', 'Slurm ended job 7 on n1 at its time limit (DEADLINE)'],
  ['OUT_OF_MEMORY', 'failed', 'OUT_OF_MEMORY', 'Slurm ended job 7 on n1: more memory was needed than it had'],
  ['PREEMPTED', 'failed', 'AGENT_LOST', 'job 7 on n1 had to make room for another one (PREEMPTED)'],
  ['NODE_FAIL', 'failed', 'AGENT_LOST', 'the node of job 7 was lost on n1 (NODE_FAIL)'],
  ['BOOT_FAIL', 'failed', 'AGENT_LOST', 'the node of job 7 was lost on n1 (BOOT_FAIL)'],
  ['CANCELLED', 'failed', 'KILLED', 'job 7 on n1 was cancelled in Slurm'],
  ['FAILED', 'failed', 'KILLED', 'job 7 on n1 has ended (FAILED) without a result'],
  ['COMPLETED', 'failed', 'KILLED', 'job 7 on n1 has ended (COMPLETED) without a result'],
] as const)('a job that is %s', (state, outcome, code, message) => {
  expect(outcomeOf(job(state))).toEqual({ outcome, error: { code: Code[code], message } });
});

test('who has cancelled it is told where Slurm tells it', () => {
  expect(outcomeOf(job('CANCELLED', { reason: 'by 1000' })).error?.message).toContain('in Slurm (by 1000)');
});

test('a job that never started the attempt has not been a submission', () => {
  const outcome = outcomeOf({ ...job('FAILED'), node: undefined, log: 'slurmstepd: error: could not chdir' });
  expect(outcome.error?.code).toBe(Code.SUBMIT_FAILED);
  expect(outcome.error?.message).toMatch(/before the attempt was started; .*: slurmstepd: error: could not chdir$/);
});

test('a job that was started again, or that nobody knows, is lost', () => {
  expect(outcomeOf(job('FAILED', { restarts: 1 })).error?.code).toBe(Code.AGENT_LOST);
  expect(outcomeOf({ ...job('FAILED'), requeued: true }).error?.code).toBe(Code.AGENT_LOST);
  expect(outcomeOf(job('PENDING')).error?.code).toBe(Code.AGENT_LOST);
  expect(outcomeOf({}).error).toMatchObject({
    code: Code.AGENT_LOST,
    message: expect.stringContaining('does not know job 7'),
  });
});

test('whoever asked for the end has the say', () => {
  expect(outcomeOf({ ...job('CANCELLED'), ending: 'cancel' })).toMatchObject({ outcome: 'cancelled' });
  expect(outcomeOf({ ...job('CANCELLED'), ending: 'shutdown' }).error?.code).toBe(Code.AGENT_LOST);
});

test('what failed by itself while Slurm told the job to end keeps its own words, unless Slurm has ended it', () => {
  const own = { outcome: 'failed' as const, error: { code: Code.EXIT_NONZERO, message: 'exit 3' } };
  expect(outcomeOf({ ...job('FAILED'), own })).toEqual(own);
  expect(outcomeOf({ ...job('PREEMPTED'), own }).error?.code).toBe(Code.AGENT_LOST);
});
