import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { processesWith } from '../support/processes.ts';
import { TestSlurm } from '../support/slurm.ts';
import { python, SlurmAgent } from '../support/slurm-agent.ts';
import { until } from '../support/wait.ts';
import { directory } from '../support/workspace.ts';

const slurm = await TestSlurm.start();
afterAll(() => slurm.stop());

/** Counts for a minute. */
function counter(): ReturnType<typeof python> {
  const source = `import time
def handler(input):
    for n in range(600):
        print(n, flush=True)
        time.sleep(0.1)
    return {}
`;
  return python(source);
}

/** A directory with a command that stands in for one of Slurm, which it may call as "$REAL". */
function standIn(tool: string, script: string): string {
  const programs = directory('bin');
  writeFileSync(join(programs, tool), `#!/bin/sh\nREAL=/usr/bin/${tool}\nhere=${programs}\n${script}\n`);
  chmodSync(join(programs, tool), 0o755);
  return programs;
}

const jobsNamed = (name: string) => slurm.jobs().filter((job) => job.name === name);
const HELLO = python('def handler(input):\n    print("hello")\n    return {"n": input["n"]}\n');

test('a job goes on without its agent, and the next one takes it up where the log ends', async () => {
  const first = await SlurmAgent.start(slurm);
  const { dataDir, shared } = first;
  const slow = `import time
def handler(input):
    for n in range(60):
        print(n, flush=True)
        time.sleep(0.1)
    return {"done": True}
`;
  first.start('kept', python(slow));
  await first.untilLogged('kept', '\n5\n');
  await first.close();
  const second = await SlurmAgent.start(slurm, { dataDir, shared });
  expect(second.told.recovered[0]).toMatchObject([{ executionId: 'kept', attempt: 1, finished: false }]);
  const ended = await second.end('kept');
  expect(ended).toMatchObject({ outcome: 'succeeded', result: '{"done":true}' });
  expect(ended.stdout.toString()).toBe(Array.from({ length: 60 }, (_, n) => `${n}\n`).join(''));
  expect(jobsNamed('kept.1')).toHaveLength(1);
});

test('a job that ended while there was no agent is told by the next one', async () => {
  const first = await SlurmAgent.start(slurm);
  const { dataDir, shared } = first;
  first.start('ended', HELLO);
  await until('the job to be submitted', () => jobsNamed('ended.1').length === 1);
  await first.close();
  await slurm.untilJob('ended.1', 'COMPLETED');
  const second = await SlurmAgent.start(slurm, { dataDir, shared });
  expect(await second.end('ended')).toMatchObject({ outcome: 'succeeded', result: '{"n":1.0}' });
});

test('an answer of sbatch that is lost never makes a second job', async () => {
  const programs = standIn('sbatch', '"$REAL" "$@" >"$here/answer"\nkill -9 $$');
  const agent = await SlurmAgent.start(slurm, { programs });
  const ended = await agent.run('lost-answer', HELLO);
  expect(ended).toMatchObject({ outcome: 'succeeded', result: '{"n":1.0}' });
  const submitted = readFileSync(join(programs, 'answer'), 'utf8').trim();
  expect(jobsNamed('lost-answer.1').map(({ id }) => id)).toEqual([submitted]);
});

test('an sbatch that ends before it has submitted is asked again', async () => {
  const once = 'if mkdir "$here/asked" 2>/dev/null; then cat >/dev/null; kill -9 $$; fi\nexec "$REAL" "$@"';
  const agent = await SlurmAgent.start(slurm, { programs: standIn('sbatch', once) });
  expect(await agent.run('asked-again', HELLO)).toMatchObject({ outcome: 'succeeded' });
  expect(jobsNamed('asked-again.1')).toHaveLength(1);
});

test('an agent that is killed while it submits finds the job', async () => {
  const programs = standIn('sbatch', '"$REAL" "$@" >"$here/answer"\nexec sleep 600');
  const first = await SlurmAgent.start(slurm, { programs });
  const { dataDir, shared } = first;
  first.start('submitting', HELLO);
  await until('the job to be submitted', () => jobsNamed('submitting.1').length === 1);
  await first.close();
  const second = await SlurmAgent.start(slurm, { dataDir, shared });
  expect(await second.end('submitting')).toMatchObject({ outcome: 'succeeded', result: '{"n":1.0}' });
  expect(jobsNamed('submitting.1')).toHaveLength(1);
});

test('two jobs of one attempt run it once', async () => {
  const twice =
    '"$REAL" "$@" --begin=now+1 <&0 >"$here/first" <<EOF\n$(tee "$here/script")\nEOF\nexec "$REAL" "$@" <"$here/script"';
  const agent = await SlurmAgent.start(slurm, { programs: standIn('sbatch', twice) });
  const ended = await agent.run('twice', HELLO);
  expect(jobsNamed('twice.1')).toHaveLength(2);
  expect(ended).toMatchObject({ outcome: 'succeeded', result: '{"n":1.0}' });
  expect(ended.stdout.toString()).toBe('hello\n');
});

test('while the controller is away nothing is taken, with its words; what runs goes on, and its end is told', async () => {
  const agent = await SlurmAgent.start(slurm);
  agent.start(
    'goes-on',
    python('import time\ndef handler(input):\n    print("on", flush=True)\n    time.sleep(15)\n    return {}\n'),
  );
  await agent.untilLogged('goes-on', 'on');
  await slurm.crashController(await slurm.savedJobs('goes-on.1', 'RUNNING'));
  await until('the agent to notice', () => agent.parts.unavailable() !== undefined);
  expect(agent.parts.environments.support().available).toContain('inline');
  expect(agent.start('refused', HELLO)).toMatchObject({
    requeue: true,
    error: { message: expect.stringMatching(/^the controller does not answer: .*Unable to contact slurm controller/) },
  });
  expect(await agent.end('goes-on')).toMatchObject({ outcome: 'succeeded' });
  slurm.startController();
  await slurm.untilReady();
  await until('the agent to notice', () => agent.parts.unavailable() === undefined);
  expect(await agent.run('afterwards', HELLO)).toMatchObject({ outcome: 'succeeded' });
});

test('a cancel reaches the job although the controller is away', async () => {
  const agent = await SlurmAgent.start(slurm);
  agent.start('by-file', counter());
  await agent.untilLogged('by-file', '3\n');
  await slurm.crashController(await slurm.savedJobs('by-file.1', 'RUNNING'));
  agent.parts.executor.cancel({ executionId: 'by-file', attempt: 1 }, 'cancel', 1_000);
  expect(await agent.end('by-file')).toMatchObject({ outcome: 'cancelled' });
  slurm.startController();
  await slurm.untilReady();
});

test('a job stops by itself when the lease of its agent is over, and one that may go on does not', async () => {
  const agent = await SlurmAgent.start(slurm);
  agent.start('stops', { ...counter(), maxDisconnect: { seconds: 0n } });
  agent.start('may-go-on', { ...counter(), maxDisconnect: { seconds: 3600n } });
  await agent.untilLogged('stops', '3\n');
  await agent.untilLogged('may-go-on', '3\n');
  agent.endLeaseIn(3_000);
  const ended = await agent.end('stops');
  expect(ended).toMatchObject({ outcome: 'failed', code: 'AGENT_LOST' });
  expect(ended.error?.message).toContain('could not reach the control plane');
  expect(agent.told.ends.has('may-go-on')).toBe(false);
  agent.parts.executor.cancel({ executionId: 'may-go-on', attempt: 1 }, 'cancel', 0);
  await agent.end('may-go-on');
});

// The last one: it may leave the node out of use.
test('a job that a crashed controller does not know to have started is lost, and does not go on', async () => {
  const agent = await SlurmAgent.start(slurm);
  slurm.run('scontrol', 'update', 'PartitionName=main', 'State=DOWN');
  agent.start('forgotten', counter());
  const before = await slurm.savedJobs('forgotten.1', 'PENDING');
  slurm.run('scontrol', 'update', 'PartitionName=main', 'State=UP');
  await agent.untilLogged('forgotten', '3\n');
  await slurm.crashController(before);
  slurm.startController();
  const ended = await agent.end('forgotten');
  expect(ended).toMatchObject({ outcome: 'failed', code: 'AGENT_LOST' });
  expect(ended.error?.message).toContain('has put job');
  // It would go on for a minute.
  await until('its processes to be gone', () => processesWith('forgotten.1').length === 0, { deadlineMs: 20_000 });
});
