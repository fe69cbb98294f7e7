import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { AssignmentSchema } from '@harrier/shared/gen/link';
import { expect, test } from 'vitest';
import { jobScript, sbatchArguments } from './sbatch-arguments.ts';

const MIB = 1024n * 1024n;

type Fields = Omit<MessageInitShape<typeof AssignmentSchema>, '$typeName' | '$unknown'>;

function argumentsOf(fields: Fields, partition = ''): string[] {
  const ref = { executionId: 'e', attempt: 2 };
  const limits = { memoryBytes: 512n * MIB };
  return sbatchArguments(create(AssignmentSchema, { ref, limits, slurm: {}, ...fields }), {
    directory: '/s/e.2',
    partition,
  });
}

test('what is not asked for is left to the cluster', () => {
  expect(argumentsOf({})).toEqual([
    '--parsable',
    '--no-requeue',
    '--job-name=e.2',
    '--chdir=/s/e.2',
    '--output=job.log',
    '--open-mode=append',
    '--export=ALL',
    '--nodes=1',
    '--ntasks=1',
    '--cpus-per-task=1',
    '--mem=640M',
  ]);
});

test('limits become requests, and words of Slurm stand above them', () => {
  const limits = { memoryBytes: 1n, cpu: 1.5, gpus: 2 };
  expect(argumentsOf({ limits }, 'batch')).toEqual(
    expect.arrayContaining(['--cpus-per-task=2', '--mem=129M', '--gres=gpu:2', '--partition=batch']),
  );
  const slurm = {
    partition: 'gpu',
    gres: 'gpu:h100:1',
    cpusPerTask: 8,
    account: 'lab',
    qos: 'high',
    constraint: 'a&b',
  };
  expect(argumentsOf({ limits, slurm }, 'batch')).toEqual(
    expect.arrayContaining([
      ...['--partition=gpu', '--gres=gpu:h100:1', '--cpus-per-task=8'],
      ...['--account=lab', '--qos=high', '--constraint=a&b'],
    ]),
  );
});

test.each([
  ['the time of the job', { slurm: { time: { seconds: 90n } }, timeout: { seconds: 10n } }, '--time=2'],
  ['the timeout, with room for the start of the job', { timeout: { seconds: 30n } }, '--time=3'],
])('the limit of time is %s', (_, fields, option) => {
  expect(argumentsOf(fields)).toContain(option);
});

test('the script is the same for every job, whatever the interpreter is called', () => {
  expect(jobScript("/opt/it's/python3")).toBe(`#!/bin/sh
PATH=/usr/local/bin:/usr/bin:/bin
export PATH
unset LC_ALL
exec '/opt/it'\\''s/python3' -I -S runtime/slurm_job.py
`);
});
