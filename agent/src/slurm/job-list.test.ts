import { describe, expect, test } from 'vitest';
import { isFinal, isWaiting, parseAccounting, parseQueue, queueArguments } from './job-list.ts';

/** As squeue of Slurm 22.05 prints it. */
const line = (id: string, state: string, restarts: string, name: string, reason: string) =>
  `${id.padEnd(20)}${state.padEnd(20)}${restarts.padEnd(12)}${name.padEnd(80)}${reason.padEnd(120)}\n`;

describe('parseQueue', () => {
  test('reads every job, with spaces in the reason', () => {
    const id = '0192d1f0-0000-7000-8000-000000000001.12';
    const jobs = parseQueue(
      line('3', 'PENDING', '0', id, 'Nodes required for job are DOWN, DRAINED or reserved') +
        line('12345678', 'COMPLETED', '2', 'other', 'None'),
    );
    expect([...jobs.values()]).toEqual([
      {
        id: '3',
        state: 'PENDING',
        restarts: 0,
        name: id,
        reason: 'Nodes required for job are DOWN, DRAINED or reserved',
      },
      { id: '12345678', state: 'COMPLETED', restarts: 2, name: 'other', reason: '' },
    ]);
  });

  test('an empty queue is one', () => {
    expect(parseQueue('')).toEqual(new Map());
  });

  test.each(['slurm_load_jobs: something else', `${'x'.repeat(20)}PENDING`, '7'])('%j is not understood', (text) => {
    expect(() => parseQueue(text)).toThrow('squeue has printed ');
  });

  test('the widths that are asked for are those that are read', () => {
    expect(queueArguments('70')).toEqual([
      '--noheader',
      '--states=all',
      '--user=70',
      '--Format=JobID:20,State:20,RestartCnt:12,Name:80,Reason:120',
    ]);
  });
});

test('accounts say by whom a job was cancelled; steps and headings are left out', () => {
  const text = '17|CANCELLED by 1000|a.1\n17.batch|CANCELLED|batch\n18|COMPLETED|b.1\nJobIDRaw|State|JobName\n';
  expect([...parseAccounting(text).values()]).toEqual([
    { id: '17', state: 'CANCELLED', reason: 'by 1000', name: 'a.1', restarts: 0 },
    { id: '18', state: 'COMPLETED', reason: '', name: 'b.1', restarts: 0 },
  ]);
});

test.each([
  ['PENDING', false, true],
  ['CONFIGURING', false, true],
  ['REQUEUED', false, true],
  ['RUNNING', false, false],
  ['COMPLETING', false, false],
  ['SUSPENDED', false, false],
  ['COMPLETED', true, false],
  ['NODE_FAIL', true, false],
  ['OUT_OF_MEMORY', true, false],
])('a job that is %s has ended: %s, waits: %s', (state, ended, waits) => {
  expect([isFinal({ state }), isWaiting({ state })]).toEqual([ended, waits]);
});
