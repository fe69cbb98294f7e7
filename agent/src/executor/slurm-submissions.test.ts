import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { expect, test } from 'vitest';
import { JobDirectory } from '../slurm/job-directory.ts';
import type { Submission } from '../slurm/slurm-cluster.ts';
import { silentLogger } from '../test-support/silent-logger.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { SlurmAttempt } from './slurm-attempt.ts';
import { SlurmSubmissions, type SlurmSubmissionsOptions } from './slurm-submissions.ts';

const PAUSES = { retry: { initialMs: 1, maxMs: 1, multiplier: 1 }, settleMs: 1, laterMs: 60_000, unknownMs: 60_000 };

/** A cluster that answers as it is told: to each submission when it has its turn, and to each question for a name. */
function submissions(
  answers: Submission[],
  found: ({ jobId: string | undefined } | undefined)[] = [],
  more: Partial<SlurmSubmissionsOptions> = {},
  turn?: Promise<void>,
) {
  const asked: string[] = [];
  const waits: string[] = [];
  const cluster = {
    submit: async (_: unknown, __: unknown, hindrance: () => string | undefined): Promise<Submission> => {
      await turn;
      const message = hindrance();
      if (message !== undefined) return { failure: 'later', message };
      asked.push('submit');
      return answers.shift() ?? { failure: 'refused', message: 'asked too often' };
    },
    find: async (name: string) => {
      asked.push(`find ${name}`);
      return found.shift();
    },
  };
  const onWait = (_: unknown, reason: string): void => void waits.push(reason);
  return {
    asked,
    waits,
    all: new SlurmSubmissions({
      ...{ cluster, script: '#!', onWait, logger: silentLogger(), pauses: PAUSES },
      ...more,
    }),
  };
}

function attempt(directory = tempDir()): SlurmAttempt {
  const facts = { executionId: 'e', attempt: 1, preludeBytes: 0 };
  return new SlurmAttempt(`${directory}/a`, facts, new JobDirectory(`${directory}/job`), () => {});
}

const LOST: Submission = { failure: 'unknown', message: 'Socket timed out' };

test('a job that was submitted although its answer was lost is found, and not submitted again', async () => {
  const { all, asked } = submissions([LOST], [undefined, { jobId: undefined }, { jobId: '5' }]);
  const one = attempt();
  expect(await all.submit(one, [])).toBe('submitted');
  expect(one.jobId).toBe('5');
  expect(asked).toEqual(['submit', 'find e.1', 'find e.1', 'find e.1']);
});

test('what was not submitted is, when the controller has said twice that there is no such job', async () => {
  const { all, asked } = submissions([LOST, { jobId: '6' }], [{ jobId: undefined }, { jobId: undefined }]);
  const one = attempt();
  expect(await all.submit(one, [])).toBe('submitted');
  expect(one.jobId).toBe('6');
  expect(asked).toEqual(['submit', 'find e.1', 'find e.1', 'submit']);
});

test('a controller that is away, or busy, is asked again; one that refuses is not', async () => {
  const away: Submission = { failure: 'away', message: 'Unable to contact slurm controller' };
  const later: Submission = { failure: 'later', message: 'temporarily unable to accept job' };
  const refused: Submission = { failure: 'refused', message: 'invalid partition specified: nope' };
  const { all, asked, waits } = submissions([away, later, refused]);
  expect(await all.submit(attempt(), [])).toEqual({
    code: Code.POLICY_DENIED,
    message: 'Slurm refuses the job: invalid partition specified: nope',
    requeue: false,
  });
  expect(asked).toEqual(['submit', 'submit', 'submit']);
  expect(waits).toEqual([away, later].map(({ message }) => `not submitted to Slurm yet: ${message}`));
});

test('what Slurm does not take for long is given back', async () => {
  const later: Submission = { failure: 'later', message: 'QOSMaxSubmitJobPerUserLimit' };
  const { all, asked } = submissions([later, later], [], { pauses: { ...PAUSES, laterMs: 0 } });
  const message = 'not submitted to Slurm: QOSMaxSubmitJobPerUserLimit';
  expect(await all.submit(attempt(), [])).toEqual({ code: Code.SUBMIT_FAILED, message, requeue: true });
  expect(asked).toEqual(['submit']);
});

test('a controller that is away is waited for, however long that takes', async () => {
  const away: Submission = { failure: 'away', message: 'Unable to contact slurm controller' };
  const pauses = { ...PAUSES, laterMs: 0 };
  const { all } = submissions([away, { jobId: '9' }], [], { pauses });
  expect(await all.submit(attempt(), [])).toBe('submitted');
});

test('a later agent knows whether there may be a job', async () => {
  const directory = tempDir();
  attempt(directory).setSubmitting(true);
  const { all } = submissions([], [{ jobId: '8' }]);
  const again = attempt(directory);
  expect([again.recovered, again.submitting]).toEqual([true, true]);
  expect(await all.find(again)).toBe(true);
  expect(attempt(directory).jobId).toBe('8');
});

test.each([
  ['its agent stops', (all: SlurmSubmissions) => all.close(), Code.AGENT_LOST],
  ['it is cancelled', (_: SlurmSubmissions, one: SlurmAttempt) => one.tellToEnd('cancel', 0), Code.CANCELLED],
])(
  'what waits for its turn is not submitted when %s, and no later agent takes it for submitted',
  async (_, end, code) => {
    const directory = tempDir();
    const turn = Promise.withResolvers<void>();
    const { all, asked } = submissions([{ jobId: '7' }], [], {}, turn.promise);
    const one = attempt(directory);
    const submitted = all.submit(one, []);
    end(all, one);
    turn.resolve();
    expect(await submitted).toMatchObject({ code });
    expect(asked).toEqual([]);
    expect(attempt(directory).submitting).toBe(false);
  },
);

test('what was not even asked for needs no question', async () => {
  const { all, asked } = submissions([]);
  expect(await all.find(attempt())).toBe(false);
  expect(asked).toEqual([]);
});

test('what cannot be noted is not submitted; it is when the disk takes the note', async () => {
  const directory = tempDir();
  const one = attempt(directory);
  const files = join(directory, 'a');
  // Nothing can be written below a file.
  rmSync(files, { recursive: true });
  writeFileSync(files, '');
  const before: string[] = [];
  const waits: string[] = [];
  const { all, asked } = submissions([{ jobId: '7' }], [], {
    onWait: (_: unknown, reason: string) => {
      before.push(...asked);
      waits.push(reason);
      rmSync(files);
      mkdirSync(files);
    },
  });
  expect(await all.submit(one, [])).toBe('submitted');
  expect(before).toEqual([]);
  expect(waits).toEqual([expect.stringContaining('the agent cannot note that it is submitted: ENOTDIR')]);
  expect(one.jobId).toBe('7');
});

test('an agent that stops while it looks for a job leaves the note that there may be one', async () => {
  const directory = tempDir();
  const { all } = submissions([LOST], [undefined], { onWait: () => all.close() });
  const one = attempt(directory);
  expect(await all.submit(one, [])).toMatchObject({ code: Code.AGENT_LOST });
  expect(attempt(directory).submitting).toBe(true);
});

test.each([
  ['null', 'is being written, or its node failed', ['find e.1', 'find e.1'], false],
  ['', 'was only made', ['find e.1', 'find e.1'], false],
  ['{"job":"12","node":"n1"}', 'names its job', [], true],
])('%j in the file by which a job takes the attempt: %s', async (text, _, asks, isFound) => {
  const directory = tempDir();
  const one = attempt(directory);
  one.setSubmitting(true);
  mkdirSync(join(directory, 'job'));
  writeFileSync(join(directory, 'job', 'taken'), text);
  const { all, asked } = submissions([], [{ jobId: undefined }, { jobId: undefined }]);
  expect(await all.find(one)).toBe(isFound);
  expect(asked).toEqual(asks);
});

test('a shared directory that cannot be read does not say that there is no job', async () => {
  const directory = tempDir();
  const one = attempt(directory);
  one.setSubmitting(true);
  // As a network file system that is away answers with an error that is not "no such file".
  writeFileSync(join(directory, 'job'), '');
  const waits: string[] = [];
  const { all, asked } = submissions([], [{ jobId: '3' }], {
    onWait: (_: unknown, reason: string) => {
      waits.push(reason);
      rmSync(join(directory, 'job'));
    },
  });
  expect(await all.find(one)).toBe(true);
  expect(waits).toEqual([
    expect.stringContaining('the shared directory has to tell whether it was submitted: ENOTDIR'),
  ]);
  expect(asked).toEqual(['find e.1']);
});

test('an attempt that is to end does not wait for a shared directory that is away', async () => {
  const directory = tempDir();
  const one = attempt(directory);
  one.setSubmitting(true);
  writeFileSync(join(directory, 'job'), '');
  one.tellToEnd('cancel', 0);
  const { all } = submissions([], [{ jobId: '3' }]);
  expect(await all.find(one)).toBe(true);
  expect(one.jobId).toBe('3');
});

const NONE = { code: Code.SUBMIT_FAILED, message: 'there is none', requeue: true };

/** An attempt of which there may be a job, whose directory is there. */
function maybeSubmitted(directory = tempDir()): SlurmAttempt {
  const one = attempt(directory);
  one.setSubmitting(true);
  mkdirSync(join(directory, 'job'), { recursive: true });
  return one;
}

test('an attempt that was withdrawn no job can start, and a later agent asks nobody before it does so too', async () => {
  const directory = tempDir();
  const { all, asked } = submissions([]);
  expect(await all.withdraw(maybeSubmitted(directory), NONE)).toBe(NONE);
  // As a job takes it.
  expect(() => writeFileSync(join(directory, 'job', 'taken'), '', { flag: 'wx' })).toThrow('EEXIST');
  const again = attempt(directory);
  expect(await all.find(again)).toBe(false);
  expect(await all.withdraw(again, NONE)).toBe(NONE);
  expect(asked).toEqual([]);
});

test('an attempt that a job has started is not withdrawn, but followed', async () => {
  const one = maybeSubmitted();
  writeFileSync(join(one.job.path, 'taken'), '{"job":"12","node":"n1"}');
  const { all } = submissions([]);
  expect(await all.withdraw(one, NONE)).toBe('submitted');
  expect(one.jobId).toBe('12');
});

test.each([
  ['by the queue', [{ jobId: undefined }, { jobId: '4' }], 60_000, 'submitted'],
  ['when the controller answers, however late', [undefined, { jobId: '4' }], 0, 'submitted'],
  ['by nobody', [{ jobId: undefined }], 0, { code: Code.AGENT_LOST, requeue: false }],
])(
  'the number of a job that has started an attempt and not told its own is told %s',
  async (_, found, unknownMs, end) => {
    const one = maybeSubmitted();
    writeFileSync(join(one.job.path, 'taken'), '');
    const { all, waits } = submissions([], [...found], { pauses: { ...PAUSES, unknownMs } });
    const ended = await all.withdraw(one, NONE);
    expect(ended).toEqual(typeof end === 'string' ? end : expect.objectContaining(end));
    expect(waits).toEqual(found.slice(1).map(() => 'a job has started it, and its number is not known yet'));
  },
);

test('what cannot be taken is not withdrawn before it can be', async () => {
  const one = maybeSubmitted();
  rmSync(one.job.path, { recursive: true });
  writeFileSync(one.job.path, '');
  const waits: string[] = [];
  const { all } = submissions([], [], {
    onWait: (_: unknown, reason: string) => {
      waits.push(reason);
      rmSync(one.job.path);
      mkdirSync(one.job.path);
    },
  });
  expect(await all.withdraw(one, NONE)).toBe(NONE);
  expect(waits).toEqual([
    expect.stringContaining('the shared directory has to tell whether a job has started it: ENOTDIR'),
  ]);
  expect(readdirSync(one.job.path)).toEqual(['taken']);
});

test('what was not even asked for is withdrawn without its directory', async () => {
  const directory = tempDir();
  writeFileSync(join(directory, 'job'), '');
  expect(await submissions([]).all.withdraw(attempt(directory), NONE)).toBe(NONE);
});

test.each<[string, Submission[], (one: SlurmAttempt) => void]>([
  ['is refused', [{ failure: 'refused', message: 'invalid partition' }], () => {}],
  ['would be given back', [{ failure: 'later', message: 'QOSMaxSubmitJobPerUserLimit' }], () => {}],
  ['is cancelled', [], (one) => one.tellToEnd('cancel', 0)],
])('a job that comes up after it was looked for is followed, although its attempt %s', async (_, answers, then) => {
  const one = maybeSubmitted();
  const { all } = submissions([LOST, ...answers], [{ jobId: undefined }, { jobId: undefined }], {
    pauses: { ...PAUSES, laterMs: 0 },
    onWait: () => {
      writeFileSync(join(one.job.path, 'taken'), '{"job":"12","node":"n1"}');
      then(one);
    },
  });
  expect(await all.submit(one, [])).toBe('submitted');
  expect(one.jobId).toBe('12');
});
