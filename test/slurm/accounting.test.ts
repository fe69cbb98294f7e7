import { chmodSync, existsSync, globSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, onTestFinished, test } from 'vitest';
import { killProcessesWith } from '../support/processes.ts';
import { TestSlurm } from '../support/slurm.ts';
import { python, SlurmAgent } from '../support/slurm-agent.ts';
import { until } from '../support/wait.ts';
import { directory } from '../support/workspace.ts';

// The controller forgets a job some seconds after its end: then only the accounts know of it.
const slurm = await TestSlurm.start({ accounting: true, settings: ['MinJobAge=2', 'OverTimeLimit=0'] });
afterAll(() => slurm.stop());

const HELLO = python('def handler(input):\n    print("hello")\n    return {"n": input["n"]}\n');
const SLEEPER = python(`import time
def handler(input):
    print("running", flush=True)
    while True:
        time.sleep(1)
`);
const EXITS = { program: { case: 'command' as const, value: { argv: ['sh', '-c', 'echo out; exit 3'] } } };

/** Until it is opened, jobs wait. */
function closePartition(): void {
  slurm.run('scontrol', 'update', 'PartitionName=main', 'State=DOWN');
  onTestFinished(openPartition);
}

function openPartition(): void {
  slurm.run('scontrol', 'update', 'PartitionName=main', 'State=UP');
}

async function runningJob(agent: SlurmAgent, name: string): Promise<string> {
  const id = await slurm.untilJob(name, 'RUNNING');
  const [records = ''] = globSync(`${agent.shared}/agents/*/jobs/${name}/records`);
  await until(`${name} to write`, () => readFileSync(records, 'utf8').includes('running'));
  return id;
}

/** An `sbatch` that submits and never says so; it dies when `answered` is called. */
function silentSbatch(): { programs: string; answered: () => void } {
  const programs = directory('bin');
  const wait = `while [ ! -e ${programs}/over ]; do sleep 0.1; done`;
  writeFileSync(join(programs, 'sbatch'), `#!/bin/sh\n/usr/bin/sbatch "$@" >/dev/null\n${wait}\nkill -9 $$\n`);
  chmodSync(join(programs, 'sbatch'), 0o755);
  return { programs, answered: () => writeFileSync(join(programs, 'over'), '') };
}

test('jobs that ended while there was no agent, and that the controller has forgotten, are told as they ended', async () => {
  const first = await SlurmAgent.start(slurm);
  const { dataDir, shared } = first;
  const jobs = { succeeds: HELLO, exits: EXITS, limit: SLEEPER, cancelled: SLEEPER, killed: SLEEPER, removed: HELLO };
  const names = Object.keys(jobs);
  closePartition();
  for (const [name, program] of Object.entries(jobs)) expect(first.start(name, program)).toBeUndefined();
  const known = (name: string) => existsSync(join(dataDir, 'slurm', 'attempts', `${name}.1`, 'job.json'));
  await until('the agent to know its jobs', () => names.every(known));
  await first.close();

  slurm.run('scancel', await slurm.untilJob('removed.1', 'PENDING'));
  openPartition();
  // As its time limit ends it, which is a minute at least.
  slurm.run('scontrol', 'update', `JobId=${await runningJob(first, 'limit.1')}`, 'EndTime=now+1');
  slurm.run('scancel', await runningJob(first, 'cancelled.1'));
  await runningJob(first, 'killed.1');
  killProcessesWith('SLURM_JOB_NAME=killed.1');
  await slurm.untilForgotten(...names.map((name) => `${name}.1`));

  const second = await SlurmAgent.start(slurm, { dataDir, shared });
  expect(await second.end('succeeds')).toMatchObject({ outcome: 'succeeded', result: '{"n":1.0}' });
  expect(await second.end('exits')).toMatchObject({ outcome: 'failed', code: 'EXIT_NONZERO', exitCode: 3 });
  const limit = await second.end('limit');
  expect(limit).toMatchObject({ outcome: 'timed_out', code: 'TIMEOUT' });
  expect(limit.error?.message).toContain('at its time limit (TIMEOUT)');
  const cancelled = await second.end('cancelled');
  expect(cancelled).toMatchObject({ outcome: 'failed', code: 'KILLED' });
  expect(cancelled.error?.message).toContain('was cancelled in Slurm (by 0)');
  const killed = await second.end('killed');
  expect(killed).toMatchObject({ outcome: 'failed', code: 'KILLED' });
  expect(killed.error?.message).toContain('has ended (FAILED) without a result');
  const removed = await second.end('removed');
  expect(removed).toMatchObject({ outcome: 'failed', code: 'KILLED' });
  expect(removed.error?.message).toContain('was cancelled in Slurm (by 0)');
  const logs = names.map((name) => [name, second.log(name, 'stdout').toString()]);
  expect(Object.fromEntries(logs)).toEqual({
    ...{ succeeds: 'hello\n', exits: 'out\n', removed: '' },
    ...{ limit: 'running\n', cancelled: 'running\n', killed: 'running\n' },
  });
  for (const name of names) expect(slurm.accounts(`${name}.1`)).toHaveLength(1);
});

test('a job that was forgotten before its number was known is found in the accounts, when they answer, and not submitted again', async () => {
  const { programs, answered } = silentSbatch();
  const agent = await SlurmAgent.start(slurm, { programs });
  closePartition();
  agent.start('unanswered', HELLO);
  // It leaves no trace but in the accounts: it never starts.
  const id = await slurm.untilJob('unanswered.1', 'PENDING');
  slurm.run('scancel', id);
  await slurm.untilForgotten('unanswered.1');
  await slurm.end('slurmdbd');
  openPartition();
  answered();
  await until('the wait to be told', () =>
    agent.told.steps.get('unanswered')?.includes('Slurm has to tell whether it was submitted'),
  );
  slurm.startAccounting();
  const ended = await agent.end('unanswered');
  expect(ended).toMatchObject({ outcome: 'failed', code: 'KILLED' });
  expect(ended.error?.message).toContain(`job ${id} was cancelled in Slurm`);
  expect(slurm.accounts('unanswered.1').map((job) => job.id)).toEqual([id]);
});
