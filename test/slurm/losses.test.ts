import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
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

/**
 * An `sbatch` that keeps what it should submit, for `submitLate`, and does not end; and an `sacct` that knows of no job.
 * @param secondLook what that does when it is asked for the second time, by a script
 */
function lateSubmission(secondLook: string): { programs: string; submitLate: () => void } {
  const keep =
    'cat >"$here/script"\nfor one; do echo "$one"; done >"$here/args.new"\nmv "$here/args.new" "$here/args"\nexec sleep 600';
  const programs = standIn('sbatch', keep);
  // Its arguments have no white space.
  const late = join(programs, 'late');
  writeFileSync(late, `#!/bin/sh\nexec /usr/bin/sbatch $(cat ${programs}/args) <${programs}/script\n`, { mode: 0o755 });
  // Asked each time that the agent looks for a job by its name.
  const looks = `for look in 1 2; do mkdir "$here/look$look" 2>/dev/null && break; done || exit 0\n[ $look = 2 ] || exit 0`;
  writeFileSync(join(programs, 'sacct'), `#!/bin/sh\nhere=${programs}\n${looks}\n${secondLook}\n`, { mode: 0o755 });
  return { programs, submitLate: () => void slurm.run(late) };
}

/** The directory of the attempt that was not submitted. */
const directoryOf = (programs: string): string =>
  /^--chdir=(.*)$/m.exec(readFileSync(join(programs, 'args'), 'utf8'))?.[1] ?? '';

test('a job that the controller takes and starts while the accounts still lack it is followed', async () => {
  const start =
    'taken=$(sed -n "s/^--chdir=//p" "$here/args")/taken\n"$here/late" >&2\nuntil [ -s "$taken" ]; do sleep 0.1; done';
  const { programs } = lateSubmission(start);
  const first = await SlurmAgent.start(slurm, { programs });
  const { dataDir, shared } = first;
  first.start('late', HELLO);
  await until('the job to be submitted', () => existsSync(join(programs, 'args')));
  await first.close();
  const second = await SlurmAgent.start(slurm, { programs, dataDir, shared });
  expect(await second.end('late')).toMatchObject({ outcome: 'succeeded', result: '{"n":1.0}' });
  expect(jobsNamed('late.1')).toHaveLength(1);
});

test('a job that comes up after its attempt was given back does not run it', async () => {
  const { programs, submitLate } = lateSubmission('');
  const first = await SlurmAgent.start(slurm, { programs });
  const { dataDir, shared } = first;
  first.start('too-late', HELLO);
  await until('the job to be submitted', () => existsSync(join(programs, 'args')));
  await first.close();
  const second = await SlurmAgent.start(slurm, { programs, dataDir, shared });
  const job = directoryOf(programs);
  await until('the attempt to be taken', () => existsSync(join(job, 'taken')));
  submitLate();
  await slurm.untilJob('too-late.1', 'FAILED');
  expect(readFileSync(join(job, 'job.log'), 'utf8')).toContain('the agent had taken this attempt back');
  expect(readFileSync(join(job, 'records'), 'utf8')).toBe('');
  second.parts.executor.forget({ executionId: 'too-late', attempt: 1 });
  await until('the files of the attempt to be removed', () => !existsSync(job));
  submitLate();
  await until('another job of it to have failed', () => {
    const states = jobsNamed('too-late.1').map(({ state }) => state);
    return states.length === 2 && states.every((state) => state === 'FAILED');
  });
  expect(existsSync(job)).toBe(false);
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
