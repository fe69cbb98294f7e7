import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { afterEach, expect, test, vi } from 'vitest';
import type { ClusterJob } from '../slurm/job-list.ts';
import { ASSIGNMENT, clusterJob, StandInSlurm } from '../test-support/stand-in-slurm.ts';

const KEY = { executionId: 'e', attempt: 1 };
const now = performance.now.bind(performance);
let passedMs = 0;

afterEach(() => {
  vi.restoreAllMocks();
  passedMs = 0;
});

/** Time passes as the executor sees it, so that what it waits out is over. */
function pass(ms: number): void {
  passedMs += ms;
  vi.spyOn(performance, 'now').mockImplementation(() => now() + passedMs);
}

/** From then on, nothing can be kept there: it is a file. */
function fill(directory: string): void {
  rmSync(directory, { recursive: true });
  writeFileSync(directory, '');
}

test('a job whose number the disk does not take is followed to its end', async () => {
  const slurm = await StandInSlurm.open({
    submit: async () => {
      fill(slurm.kept);
      slurm.writeResult();
      return { jobId: '7' };
    },
  });
  slurm.start();
  await slurm.told(() => slurm.ends.length > 0);
  expect(slurm.ends[0]).toMatchObject({ outcome: 'succeeded', output: Buffer.from('{"ok":1}') });
});

test('an agent that finds the disk full when it looks for a job of a former one goes on', async () => {
  const asked = Promise.withResolvers<void>();
  const former = await StandInSlurm.open({
    submit: async () => {
      asked.resolve();
      return await new Promise(() => {});
    },
  });
  former.start();
  await asked.promise;
  former.executor.close();
  const { dataDir, root } = former;
  const slurm = await StandInSlurm.open(
    {
      find: async () => {
        fill(former.kept);
        former.writeResult();
        return { jobId: '7' };
      },
    },
    dataDir,
    root,
  );
  await slurm.told(() => slurm.ends.length > 0);
  expect(slurm.ends[0]).toMatchObject({ outcome: 'succeeded' });
});

const NEVER = new Promise<never>(() => {});

test('what a former agent has kept and not submitted is given back, without a question to the controller', async () => {
  const former = await StandInSlurm.open({ turn: NEVER });
  former.start();
  former.executor.close();
  const found: string[] = [];
  const find = async (name: string) => ({ jobId: void found.push(name) });
  const slurm = await StandInSlurm.open({ find }, former.dataDir, former.root);
  await slurm.told(() => slurm.refusals.length > 0);
  const message = 'the agent was started again before it had submitted the job';
  expect(slurm.refusals).toEqual([{ code: Code.SUBMIT_FAILED, message }]);
  expect([found, slurm.ends, existsSync(slurm.kept)]).toEqual([[], [], false]);
});

/** Where an agent was killed while it submitted: nobody knows whether there is a job. */
async function killedWhileItSubmitted(): Promise<StandInSlurm> {
  const asked = Promise.withResolvers<void>();
  const former = await StandInSlurm.open({
    submit: async () => {
      asked.resolve();
      return await NEVER;
    },
  });
  former.start();
  await asked.promise;
  former.executor.close();
  return former;
}

/** A question for a job by its name, which there is none of. @param last happens before the last answer is told */
function noJob(last = (): void => {}) {
  let looks = 0;
  const find = async () => {
    if (++looks === 2) last();
    return { jobId: undefined };
  };
  return { find, looks: () => looks };
}

test('what a former agent may have submitted is given back when the controller has no such job, and none can start it', async () => {
  const { dataDir, root } = await killedWhileItSubmitted();
  const { find, looks } = noJob();
  const slurm = await StandInSlurm.open({ find }, dataDir, root, false);
  await slurm.told(() => slurm.refusals.length > 0);
  expect(looks()).toBe(2);
  // As a job takes it that comes up now.
  expect(() => writeFileSync(join(slurm.job, 'taken'), '', { flag: 'wx' })).toThrow('EEXIST');
  slurm.executor.close();
  // The next agent knows by that who has taken it.
  const none = noJob();
  const next = await StandInSlurm.open({ find: none.find }, dataDir, root);
  await next.told(() => next.refusals.length > 0);
  expect([none.looks(), next.ends, existsSync(next.kept)]).toEqual([0, [], false]);
  while (existsSync(next.job)) await new Promise((resolve) => setImmediate(resolve));
});

test('a job that starts while Slurm still says that there is none is followed to its end', async () => {
  const { dataDir, root } = await killedWhileItSubmitted();
  // The accounts lag.
  const { find } = noJob(() => slurm.writeResult());
  const slurm = await StandInSlurm.open({ find }, dataDir, root);
  await slurm.told(() => slurm.ends.length > 0 || slurm.refusals.length > 0);
  expect([slurm.refusals, slurm.ends]).toEqual([[], [expect.objectContaining({ outcome: 'succeeded' })]]);
});

test('what no job can be kept from starting is not given back before one can', async () => {
  const { dataDir, root, job } = await killedWhileItSubmitted();
  const { find } = noJob(() => {
    renameSync(job, `${job}-away`);
    writeFileSync(job, '');
  });
  const slurm = await StandInSlurm.open({ find }, dataDir, root, false);
  await slurm.told(() => slurm.refusals.length > 0 || slurm.steps.some((step) => step.includes('ENOTDIR')));
  expect(slurm.refusals).toEqual([]);
  rmSync(job);
  renameSync(`${job}-away`, job);
  await slurm.told(() => slurm.refusals.length > 0);
  expect(statSync(join(job, 'taken')).isDirectory()).toBe(true);
});

test('what Slurm does not take for long is given back over the next link', async () => {
  const slurm = await StandInSlurm.open(
    {
      submit: async () => {
        pass(10 * 60_000);
        return { failure: 'later', message: 'QOSMaxSubmitJobPerUserLimit' };
      },
    },
    undefined,
    undefined,
    false,
  );
  slurm.start();
  await slurm.told(() => slurm.refusals.length > 0);
  const message = 'not submitted to Slurm: QOSMaxSubmitJobPerUserLimit';
  expect(slurm.refusals).toEqual([{ code: Code.SUBMIT_FAILED, message }]);
  slurm.linked = true;
  slurm.executor.replay();
  await slurm.told(() => !existsSync(slurm.kept));
  expect(slurm.ends).toEqual([]);
});

/** What waits to be given back: nobody was told yet. */
async function untold(): Promise<StandInSlurm> {
  const former = await StandInSlurm.open({ turn: NEVER });
  former.start();
  former.executor.close();
  const slurm = await StandInSlurm.open({}, former.dataDir, former.root, false);
  await slurm.told(() => slurm.recovered.length > 0 && slurm.refusals.length > 0);
  return slurm;
}

test('what could not be given back without a link is given back over the next one, as what has not started', async () => {
  const slurm = await untold();
  expect(slurm.executor.jobs).toBe(0);
  slurm.linked = true;
  slurm.executor.replay();
  await slurm.told(() => !existsSync(slurm.kept));
  expect(slurm.recovered.at(-1)).toMatchObject([{ ...KEY, finished: false, started: false }]);
  expect(slurm.ends).toEqual([]);
});

test('what is cancelled before it could be given back is cancelled', async () => {
  const slurm = await untold();
  slurm.executor.cancel(KEY, 'cancel', 60_000);
  await slurm.told(() => slurm.ends.length > 0);
  expect(slurm.ends[0]).toMatchObject({ outcome: 'cancelled' });
});

test('what a former agent was making an environment for is given back', async () => {
  const former = await StandInSlurm.open();
  former.executor.preparing(ASSIGNMENT);
  former.executor.close();
  const slurm = await StandInSlurm.open({}, former.dataDir, former.root);
  await slurm.told(() => slurm.refusals.length > 0);
  expect([slurm.ends, existsSync(slurm.kept)]).toEqual([[], false]);
});

test('what was noted while its environment was made is forgotten without it, or becomes a job as any other', async () => {
  const slurm = await StandInSlurm.open();
  slurm.executor.preparing(ASSIGNMENT);
  expect(existsSync(slurm.kept)).toBe(true);
  slurm.executor.forget(KEY);
  expect(existsSync(slurm.kept)).toBe(false);
  slurm.executor.preparing(ASSIGNMENT);
  slurm.start();
  await slurm.submitted();
  slurm.writeResult();
  await slurm.told(() => slurm.ends.length > 0);
  expect(slurm.ends[0]).toMatchObject({ outcome: 'succeeded' });
});

test('what a former agent knew of a job for the log and the metrics, the next one knows', async () => {
  const former = await StandInSlurm.open();
  former.start();
  await former.submitted();
  former.executor.close();
  const slurm = await StandInSlurm.open({}, former.dataDir, former.root);
  await slurm.told(() => slurm.recovered.length > 0);
  const about = { tenant: 'acme', taskClass: 'gpu_slurm', environment: 'inline', traceParent: '00-1-2-01' };
  expect(slurm.recovered).toEqual([[{ ...KEY, ...about, finished: false, started: false }]]);
});

test('output counts until it is acknowledged, and a result until it is stored', async () => {
  const slurm = await StandInSlurm.open();
  slurm.stores = false;
  slurm.start();
  await slurm.submitted();
  expect(slurm.executor.unacknowledgedBytes).toBe(0);
  slurm.writeResult();
  await slurm.told(() => slurm.ends.length > 0);
  const result = Buffer.byteLength('{"ok":1}');
  expect(slurm.executor.unacknowledgedBytes).toBe('hi\n'.length + result);
  slurm.executor.acknowledgeOutput(KEY, 2, 0);
  expect(slurm.executor.unacknowledgedBytes).toBe(1 + result);
  slurm.executor.acknowledgeOutput(KEY, Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
  expect(slurm.executor.unacknowledgedBytes).toBe(result);
  slurm.executor.forget(KEY);
  expect(slurm.executor.unacknowledgedBytes).toBe(0);
});

test('a step that fails ends its attempt, and not the agent', async () => {
  const ended: string[] = [];
  const slurm = await StandInSlurm.open({
    submit: () => Promise.reject(new Error('a defect')),
    end: async (_, how) => void ended.push(how),
  });
  slurm.start();
  await slurm.told(() => slurm.ends.length > 0);
  const message = 'the agent could not bring it to Slurm: a defect';
  expect(slurm.ends[0]).toMatchObject({ outcome: 'failed', error: { code: Code.INTERNAL, message } });
  // There is no job.
  expect(ended).toEqual([]);
});

test.each([
  // The empty directory on which a file system was mounted.
  ['unmounted', (away: string) => mkdirSync(away)],
  ['no directory', (away: string) => writeFileSync(away, '')],
  ['missing', () => {}],
])('a job that ended while the shared directory was away (%s) is not told as lost', async (_, leave) => {
  const slurm = await StandInSlurm.open();
  slurm.start();
  await slurm.submitted();
  const away = `${slurm.root}-away`;
  renameSync(slurm.root, away);
  slurm.writeResult(slurm.job.replace(slurm.root, away));
  leave(slurm.root);
  slurm.look('COMPLETED');
  pass(10_000);
  await slurm.looks('COMPLETED', () => slurm.steps.length > 0);
  expect(slurm.steps).toEqual([expect.stringContaining('Slurm job 7 has ended, but its files cannot be read yet: ')]);
  expect(slurm.ends).toEqual([]);
  rmSync(slurm.root, { recursive: true, force: true });
  renameSync(away, slurm.root);
  await slurm.told(() => slurm.ends.length > 0);
  expect(slurm.ends[0]).toMatchObject({ outcome: 'succeeded', stdoutBytes: 3 });
});

test('a job whose output the agent has no room for is not told as ended without a result', async () => {
  const slurm = await StandInSlurm.open();
  mkdirSync(slurm.kept, { recursive: true });
  symlinkSync('/dev/full', join(slurm.kept, 'stdout'));
  slurm.start();
  await slurm.submitted();
  slurm.writeResult();
  slurm.look('COMPLETED');
  pass(10_000);
  await slurm.looks('COMPLETED', () => slurm.steps.length > 0);
  expect(slurm.steps).toEqual([expect.stringContaining('its files cannot be read yet: ENOSPC')]);
  expect(slurm.ends).toEqual([]);
});

test('a job whose files are gone from a directory that is there has ended as Slurm says', async () => {
  const slurm = await StandInSlurm.open();
  slurm.start();
  await slurm.submitted();
  rmSync(slurm.job, { recursive: true });
  slurm.look('NODE_FAIL');
  pass(10_000);
  await slurm.looks('NODE_FAIL', () => slurm.ends.length > 0);
  expect(slurm.ends[0]).toMatchObject({ outcome: 'failed', error: { code: Code.AGENT_LOST } });
});

test('a cancel ends a job whose directory does not come back', async () => {
  const slurm = await StandInSlurm.open();
  slurm.start();
  await slurm.submitted();
  rmSync(slurm.root, { recursive: true });
  slurm.executor.cancel(KEY, 'cancel', 0);
  slurm.look('CANCELLED');
  pass(10_000);
  await slurm.looks('CANCELLED', () => slurm.steps.length > 0);
  expect(slurm.ends).toEqual([]);
  pass(60_000);
  await slurm.looks('CANCELLED', () => slurm.ends.length > 0);
  expect(slurm.ends[0]).toMatchObject({ outcome: 'cancelled' });
});

/** A job that has started, and that the controller has forgotten. */
async function forgotten(accounts: () => Promise<ReadonlyMap<string, ClusterJob> | undefined>): Promise<StandInSlurm> {
  const slurm = await StandInSlurm.open({ accounts });
  slurm.start();
  await slurm.submitted();
  slurm.writeStart();
  await slurm.looks(undefined, () => slurm.started);
  return slurm;
}

/** The controller still does not know the job, and the accounts were asked. */
async function lookAgain(slurm: StandInSlurm): Promise<void> {
  let looks = 0;
  await slurm.looks(undefined, () => ++looks > 5);
}

test('a job that the controller has forgotten waits for accounts that do not answer, however long', async () => {
  let known: ReadonlyMap<string, ClusterJob> | undefined;
  const slurm = await forgotten(async () => known);
  pass(120_000);
  await slurm.looks(undefined, () => slurm.steps.length > 0);
  pass(120_000);
  await lookAgain(slurm);
  expect(slurm.steps).toEqual(['Slurm has forgotten job 7, and its accounting does not answer']);
  expect(slurm.ends).toEqual([]);
  known = new Map([['7', clusterJob('TIMEOUT')]]);
  await lookAgain(slurm);
  pass(10_000);
  await slurm.looks(undefined, () => slurm.ends.length > 0);
  expect(slurm.ends[0]).toMatchObject({ outcome: 'timed_out', error: { code: Code.TIMEOUT } });
});

test('a cancel ends a job whose accounts do not answer', async () => {
  const slurm = await forgotten(async () => undefined);
  slurm.executor.cancel(KEY, 'cancel', 0);
  await lookAgain(slurm);
  pass(70_000);
  await slurm.looks(undefined, () => slurm.ends.length > 0);
  expect(slurm.ends[0]).toMatchObject({ outcome: 'cancelled' });
});

test.each([['RUNNING'], ['PENDING']])(
  'a job that only the accounts still know, as %s, is lost: no end of it will come',
  async (state) => {
    const slurm = await forgotten(async () => new Map([['7', clusterJob(state)]]));
    await lookAgain(slurm);
    pass(70_000);
    await slurm.looks(undefined, () => slurm.ends.length > 0);
    expect(slurm.ends[0]).toMatchObject({ outcome: 'failed', error: { code: Code.AGENT_LOST } });
    expect(slurm.ends[0]?.error?.message).toContain('does not know job 7 any more');
  },
);

/** What the agent has asked of a job, by the directory that they share. */
function asked(slurm: StandInSlurm): { reason: string; grace_ms: number } {
  return JSON.parse(readFileSync(join(slurm.job, 'cancel.json'), 'utf8'));
}

/** A cluster that tells how it was asked to end the job, and answers when the test says. */
function ending() {
  const requests: { how: string; answer: (fault?: string) => void }[] = [];
  let next = Promise.withResolvers<void>();
  const end = (_: string, how: string): Promise<string | undefined> => {
    const { promise, resolve } = Promise.withResolvers<string | undefined>();
    requests.push({ how, answer: resolve });
    next.resolve();
    next = Promise.withResolvers();
    return promise;
  };
  const request = async (index: number) => {
    while (requests[index] === undefined) await next.promise;
    return requests[index];
  };
  return { end, request, requests };
}

test('a cancel that the controller has to be told again leaves the job what is left of its grace', async () => {
  const { end, request, requests } = ending();
  const slurm = await StandInSlurm.open({ end });
  slurm.start();
  await slurm.submitted();
  slurm.look('RUNNING');
  slurm.executor.cancel(KEY, 'cancel', 60_000);
  const first = await request(0);
  expect([first.how, asked(slurm).reason]).toEqual(['ask', 'cancel']);
  expect(asked(slurm).grace_ms).toBeGreaterThan(50_000);
  // The request is still under way: it is not made again.
  slurm.look('RUNNING');
  first.answer('Unable to contact slurm controller');
  await Promise.resolve();
  pass(20_000);
  await slurm.looks('RUNNING', () => requests.length > 1);
  const { how } = await request(1);
  expect(how).toBe('ask');
  expect(asked(slurm).grace_ms).toBeGreaterThan(30_000);
  expect(asked(slurm).grace_ms).toBeLessThanOrEqual(40_000);
});

test('a second cancel may shorten the grace, and leaves the reason', async () => {
  const { end, request } = ending();
  const slurm = await StandInSlurm.open({ end });
  slurm.start();
  await slurm.submitted();
  slurm.look('RUNNING');
  slurm.executor.cancel(KEY, 'cancel', 60_000);
  (await request(0)).answer();
  slurm.executor.cancel(KEY, 'shutdown', 0);
  const kill = await request(1);
  expect(kill.how).toBe('kill');
  expect(asked(slurm)).toEqual({ reason: 'cancel', grace_ms: 0 });
  kill.answer();
  expect((await request(2)).how).toBe('remove');
});

test('an agent that was started again knows what is left of the grace', async () => {
  const first = ending();
  const former = await StandInSlurm.open({ end: first.end });
  former.start();
  await former.submitted();
  former.look('RUNNING');
  former.executor.cancel(KEY, 'cancel', 60_000);
  await first.request(0);
  former.executor.close();
  vi.spyOn(Date, 'now').mockReturnValue(Date.now() + 20_000);
  const { end, request } = ending();
  const slurm = await StandInSlurm.open({ end }, former.dataDir, former.root);
  slurm.look('RUNNING');
  expect((await request(0)).how).toBe('ask');
  expect(asked(slurm).grace_ms).toBeGreaterThan(30_000);
  expect(asked(slurm).grace_ms).toBeLessThanOrEqual(40_000);
});

test('a job that waits is taken out of the queue by a cancel, whatever its grace', async () => {
  const { end, request } = ending();
  const slurm = await StandInSlurm.open({ end });
  slurm.start();
  await slurm.submitted();
  slurm.look('PENDING');
  slurm.executor.cancel(KEY, 'cancel', 60_000);
  expect((await request(0)).how).toBe('remove');
});

test('a job that the controller takes for one that waits, although it has started, is told to end, and lost', async () => {
  const slurm = await StandInSlurm.open();
  slurm.start();
  await slurm.submitted();
  slurm.writeStart();
  await slurm.told(() => slurm.started);
  slurm.look('PENDING');
  while (!existsSync(join(slurm.job, 'cancel.json'))) await new Promise((resolve) => setImmediate(resolve));
  expect(asked(slurm)).toEqual({ reason: 'shutdown', grace_ms: 0 });
  pass(15_000);
  await slurm.looks('PENDING', () => slurm.ends.length > 0);
  expect(slurm.ends[0]).toMatchObject({ outcome: 'failed', error: { code: Code.AGENT_LOST } });
});

test('an answer of the controller that is older than the start of a job ends nothing', async () => {
  const slurm = await StandInSlurm.open();
  slurm.start();
  await slurm.submitted();
  const beforeMs = performance.now();
  slurm.writeStart();
  await slurm.told(() => slurm.started);
  slurm.look('PENDING', beforeMs);
  slurm.look('RUNNING');
  slurm.writeResult();
  await slurm.told(() => slurm.ends.length > 0);
  expect(slurm.ends[0]).toMatchObject({ outcome: 'succeeded' });
  expect(existsSync(join(slurm.job, 'cancel.json'))).toBe(false);
});
