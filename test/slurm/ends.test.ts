import { afterAll, expect, test } from 'vitest';
import { processesWith } from '../support/processes.ts';
import { TestSlurm } from '../support/slurm.ts';
import { python, SlurmAgent } from '../support/slurm-agent.ts';
import { until } from '../support/wait.ts';

const slurm = await TestSlurm.start({ settings: ['OverTimeLimit=0'] });
afterAll(() => slurm.stop());

/** Prints, starts a process that is found by its argument, and sleeps; `stubborn`: whatever it is told. */
function sleeper(mark: string, stubborn = false): string {
  return `import signal, subprocess, time
def handler(input):
    if ${stubborn ? 'True' : 'False'}:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sleep", "${mark}"])
    print("running", flush=True)
    while True:
        time.sleep(1)
`;
}

async function running(id: string, fields: object): Promise<SlurmAgent> {
  const agent = await SlurmAgent.start(slurm);
  expect(agent.start(id, fields)).toBeUndefined();
  await agent.untilLogged(id, 'running');
  return agent;
}

test.each([
  ['polite', false],
  ['stubborn', true],
])('a cancel ends the job and all that it has started: %s', async (id, stubborn) => {
  const agent = await running(id, python(sleeper('7001', stubborn)));
  agent.parts.executor.cancel({ executionId: id, attempt: 1 }, 'cancel', 500);
  expect(await agent.end(id)).toMatchObject({ outcome: 'cancelled', code: 'CANCELLED' });
  await until('what it started to be gone', () => processesWith('7001').length === 0);
  await until(
    'the job to have ended',
    () => !slurm.jobs().some(({ state }) => state === 'RUNNING' || state === 'COMPLETING'),
  );
});

test('a job that waits is taken out of the queue', async () => {
  const agent = await SlurmAgent.start(slurm);
  agent.start('waits', { ...python(sleeper('7002')), slurm: { cpusPerTask: 60 } });
  await agent.untilLogged('waits', 'running');
  agent.start('behind', { ...python(sleeper('7003')), slurm: { cpusPerTask: 60 } });
  await slurm.untilJob('behind.1', 'PENDING');
  agent.parts.executor.cancel({ executionId: 'behind', attempt: 1 }, 'cancel', 10_000);
  expect(await agent.end('behind')).toMatchObject({ outcome: 'cancelled', stdout: Buffer.alloc(0) });
  agent.parts.executor.cancel({ executionId: 'waits', attempt: 1 }, 'cancel', 0);
  await agent.end('waits');
});

test('the timeout of the attempt comes before the limit of the job', async () => {
  const agent = await SlurmAgent.start(slurm);
  const ended = await agent.run('timeout', { ...python(sleeper('7004')), timeout: { seconds: 1n } });
  expect(ended).toMatchObject({ outcome: 'timed_out', code: 'TIMEOUT' });
});

// The shortest limit is a minute, and Slurm looks for what is over its limit every half a minute only.
test("Slurm's time limit is a timeout", async () => {
  const agent = await running('limit', { ...python(sleeper('7005')), slurm: { time: { seconds: 60n } } });
  const id = await slurm.untilJob('limit.1', 'RUNNING');
  const ended = await agent.end('limit', 240_000);
  expect(ended).toMatchObject({ outcome: 'timed_out', code: 'TIMEOUT' });
  expect(ended.error?.message).toContain(`Slurm ended job ${id}`);
  expect(ended.stdout.toString()).toBe('running\n');
  await until('what it started to be gone', () => processesWith('7005').length === 0);
});

test('memory beyond the limit ends the code', async () => {
  const agent = await SlurmAgent.start(slurm);
  const ended = await agent.run('memory', python('def handler(input):\n    return {"n": len(bytearray(1 << 30))}\n'));
  expect(ended).toMatchObject({ outcome: 'failed', code: 'OUT_OF_MEMORY' });
});

test('a job that makes room for another one is tried again', async () => {
  const agent = await running('low', { ...python(sleeper('7006')), slurm: { partition: 'low', cpusPerTask: 64 } });
  agent.start('high', { ...python('def handler(input): return {}'), slurm: { partition: 'high', cpusPerTask: 64 } });
  const ended = await agent.end('low');
  expect(ended).toMatchObject({ outcome: 'failed', code: 'AGENT_LOST' });
  expect(ended.error?.message).toContain('PREEMPTED');
  expect(await agent.end('high')).toMatchObject({ outcome: 'succeeded' });
});

test('a job that somebody cancels in Slurm is not tried again', async () => {
  const agent = await running('scancel', python(sleeper('7007')));
  slurm.run('scancel', await slurm.untilJob('scancel.1', 'RUNNING'));
  const ended = await agent.end('scancel');
  expect(ended).toMatchObject({ outcome: 'failed', code: 'KILLED' });
  expect(ended.error?.message).toContain('was cancelled in Slurm');
});

test('a job that Slurm puts back into its queue is not started again under the same number', async () => {
  const agent = await running('requeued', python(sleeper('7008')));
  const id = await slurm.untilJob('requeued.1', 'RUNNING');
  slurm.run('scontrol', 'update', `JobId=${id}`, 'Requeue=1');
  slurm.run('scontrol', 'requeue', id);
  const ended = await agent.end('requeued');
  expect(ended).toMatchObject({ outcome: 'failed', code: 'AGENT_LOST' });
  expect(ended.error?.message).toContain('back into its queue');
  await until('the job to be gone', () => !slurm.jobs().some((job) => job.id === id && job.state === 'PENDING'));
  expect(ended.stdout.toString()).toBe('running\n');
});

test('a runtime that is killed has left no result', async () => {
  const agent = await running('killed', python(sleeper('7009')));
  slurm.run('scancel', '--full', '--signal=KILL', await slurm.untilJob('killed.1', 'RUNNING'));
  const ended = await agent.end('killed');
  expect(ended).toMatchObject({ outcome: 'failed', code: 'KILLED' });
  await until('what it started to be gone', () => processesWith('7009').length === 0);
});
