import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { afterAll, expect, test } from 'vitest';
import { fixture } from '../support/requests.ts';
import { TestSlurm } from '../support/slurm.ts';
import { python, SlurmAgent } from '../support/slurm-agent.ts';
import { until } from '../support/wait.ts';
import { writtenBytes } from '../support/written.ts';

const slurm = await TestSlurm.start();
afterAll(() => slurm.stop());

const SLEEPER = 'import time\ndef handler(input):\n    print("running", flush=True)\n    time.sleep(600)\n';

test('a handler runs as a job, in the sandbox, and its output and result come back byte for byte', async () => {
  const agent = await SlurmAgent.start(slurm);
  const input = { seed: 7, stdout: 300_001, stderr: 100_003 };
  const written = await agent.run('writer', {
    ...python(fixture('writer.py')),
    inputJson: Buffer.from(JSON.stringify(input)),
  });
  expect(written).toMatchObject({ outcome: 'succeeded', error: undefined });
  expect(written.stdout.equals(writtenBytes(input, 'stdout'))).toBe(true);
  expect(written.stderr.equals(writtenBytes(input, 'stderr'))).toBe(true);
  expect(slurm.jobs()).toMatchObject([{ name: 'writer.1' }]);
});

test('a command gets its input, and its exit code counts', async () => {
  const agent = await SlurmAgent.start(slurm);
  const command = (...argv: string[]) => ({ program: { case: 'command' as const, value: { argv } } });
  const ended = await agent.run('command', command('sh', '-c', 'cat; echo there >&2; exit 3'));
  expect(ended).toMatchObject({ outcome: 'failed', code: 'EXIT_NONZERO', exitCode: 3 });
  expect([ended.stdout.toString(), ended.stderr.toString()]).toEqual(['{"n": 1.0}', 'there\n']);
});

test('the code sees what the job was given, and nothing of the shared directory', async () => {
  const agent = await SlurmAgent.start(slurm);
  const source = `import os
def handler(input, context):
    return {"job": os.environ["SLURM_JOB_ID"], "cpus": os.environ["SLURM_CPUS_PER_TASK"], "user": os.getuid(),
            "late": context.deadline, "shared": os.path.exists(${JSON.stringify(agent.shared)})}
`;
  const ended = await agent.run('sees', { ...python(source), slurm: { cpusPerTask: 2 }, timeout: { seconds: 60n } });
  const job = slurm.jobs().find(({ name }) => name === 'sees.1');
  expect(JSON.parse(ended.result)).toMatchObject({ job: job?.id, cpus: '2', user: 1000, shared: false });
  expect(JSON.parse(ended.result).late).toBeGreaterThan(Date.now() / 1000);
});

test('progress is told, and why a job waits', async () => {
  const agent = await SlurmAgent.start(slurm);
  slurm.run('scontrol', 'update', 'PartitionName=main', 'State=DOWN');
  const source = `import time
def handler(input, context):
    context.progress(40, "nearly half")
    print("told", flush=True)
    return {}
`;
  expect(agent.start('waits', python(source))).toBeUndefined();
  await until('the wait to be told', () =>
    agent.told.steps.get('waits')?.some((step) => /waits: PartitionDown/.test(step)),
  );
  slurm.run('scontrol', 'update', 'PartitionName=main', 'State=UP');
  expect(await agent.end('waits')).toMatchObject({ outcome: 'succeeded' });
  expect(agent.told.steps.get('waits')?.at(-1)).toBe('nearly half');
});

test.each([
  ['a partition that is not there', { partition: 'nope' }, 'invalid partition specified: nope'],
  ['resources that no node has', { gres: 'gpu:1' }, 'Invalid generic resource (gres) specification'],
  ['a feature that no node has', { constraint: 'infiniband' }, 'Invalid feature specification'],
  ['more time than the partition gives', { time: { seconds: 86_400n } }, 'Requested time limit is invalid'],
])('%s: refused, in the words of Slurm', async (what, job, words) => {
  const agent = await SlurmAgent.start(slurm);
  const ended = await agent.run(what.replaceAll(' ', '-'), { ...python('def handler(input): return {}'), slurm: job });
  expect(ended).toMatchObject({ outcome: 'failed', code: 'POLICY_DENIED' });
  expect(ended.error?.message).toContain(words);
});

test('images, and more jobs than there may be, are not taken', async () => {
  const agent = await SlurmAgent.start(slurm, { maxJobs: 1 });
  expect(agent.start('one', python(SLEEPER))).toBeUndefined();
  expect(agent.start('two', python(SLEEPER))).toMatchObject({
    requeue: true,
    error: { message: expect.stringContaining('has 1 jobs in Slurm') },
  });
  agent.parts.executor.cancel({ executionId: 'one', attempt: 1 }, 'cancel', 0);
  expect(await agent.end('one')).toMatchObject({ outcome: 'cancelled' });
  expect(agent.start('image', { program: { case: 'image', value: { image: 'tool:1', argv: [] } } })).toMatchObject({
    requeue: false,
    error: { code: Code.POLICY_DENIED },
  });
});
