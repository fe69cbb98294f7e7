import { create } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State, LogChunk_Stream as Stream } from '@harrier/shared/gen/execution';
import {
  type AgentMessage,
  AssignmentSchema,
  AttemptRefSchema,
  CancelAttemptSchema,
  LockDecidedSchema,
  LogStoredSchema,
  WelcomeSchema,
} from '@harrier/shared/gen/link';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { EnvironmentError } from '../environment/environment.ts';
import { EnvironmentRegistry } from '../environment/environment-registry.ts';
import type { AttemptEnd, AttemptKey, Executor, StartRefusal } from '../executor/executor.ts';
import { ManualProvider } from '../test-support/manual-provider.ts';
import { NO_GPUS } from '../test-support/no-gpus.ts';
import { silentLogger } from '../test-support/silent-logger.ts';
import { AttemptTable } from './attempt-table.ts';

const A: AttemptKey = { executionId: 'a', attempt: 1 };
const MIB = 1024 * 1024;

function setUp(options: { slots?: number; refuse?: StartRefusal; kind?: 'process' | 'slurm' } = {}) {
  const executor = {
    kind: options.kind ?? ('process' as const),
    preparing: vi.fn<NonNullable<Executor['preparing']>>(),
    start: vi.fn<Executor['start']>(() => options.refuse),
    cancel: vi.fn<Executor['cancel']>(),
    acknowledgeOutput: vi.fn<Executor['acknowledgeOutput']>(),
    forget: vi.fn<Executor['forget']>(),
    replay: vi.fn<Executor['replay']>(),
  };
  const provider = new ManualProvider();
  const environments = new EnvironmentRegistry(() => {});
  environments.add(provider);
  const sent: AgentMessage['message'][] = [];
  const onEnvironmentPrepared = vi.fn();
  let nowMs = 0;
  const table = new AttemptTable({
    environments,
    slurmEnvironments: () => environments,
    slots: options.slots ?? 2,
    caps: { cpu: 4, memoryBytes: 1, tmpBytes: 1, network: 'none' },
    gpus: NO_GPUS,
    send: ({ message }) => sent.push(message),
    onFinished: vi.fn(),
    onEnvironmentPrepared,
    onQuiet: vi.fn(),
    onForgotten: () => {},
    logger: silentLogger(),
    nowMs: () => nowMs,
  });
  table.addExecutor(executor);
  const parts = {
    table,
    executor,
    provider,
    onEnvironmentPrepared,
    advance: (ms: number) => {
      nowMs += ms;
    },
    takeSent: () => sent.splice(0),
    /** What was sent since the last look: kinds, and logs as `offset text`. */
    told: () => sent.splice(0).map((message) => (message.case === 'log' ? logOf(message.value) : message.case)),
    link: (stderrBytes = 0) => {
      const resume = table.held().map(({ ref }) => ({ ref, stderrOffset: BigInt(stderrBytes) }));
      table.linkUp(create(WelcomeSchema, { resume }));
      table.onRecovered(executor, []);
    },
    stored: (stderrBytes: number) => {
      table.logStored(create(LogStoredSchema, { ref: A, stderrOffset: BigInt(stderrBytes) }));
    },
    cancel: () => table.cancel(create(CancelAttemptSchema, { ref: A, grace: { seconds: 60n } })),
  };
  parts.link();
  return parts;
}

/** An agent that prepares the environment of an attempt. */
function setUpPreparing(options: Parameters<typeof setUp>[0] = {}) {
  const parts = setUp(options);
  parts.table.assign(assignment(A));
  expect(parts.told()).toEqual(['preparing']);
  return parts;
}

function logOf({ stream, offset, data }: { stream: Stream; offset: bigint; data: Uint8Array }): string {
  expect(stream).toBe(Stream.STDERR);
  return `${offset} ${data.length > 40 ? data.length : Buffer.from(data).toString()}`;
}

function assignment(ref: AttemptKey, isJob = false) {
  return create(AssignmentSchema, {
    ref,
    ...(isJob && { slurm: {} }),
    tenant: 'acme',
    taskClass: 'cpu_short',
    program: { case: 'python', value: { source: '', handler: 'handler', preload: ['six'] } },
    environment: { kind: { case: 'venv', value: { requirements: ['six'] } } },
    limits: { memoryBytes: 1n, tmpBytes: 1n },
  });
}

/** Lets what a promise leads to happen. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

const SUCCEEDED: AttemptEnd = {
  outcome: 'succeeded',
  error: undefined,
  exitCode: undefined,
  output: Buffer.from('{}'),
  runMs: 1,
  cpuMs: 0,
  maxRssBytes: 0,
  stdoutBytes: 0,
  stderrBytes: 0,
  stdoutTruncated: false,
  stderrTruncated: false,
};

test('a module whose environment is there already gets its lock all the same, once a link', () => {
  const { table, provider, takeSent, link } = setUp();
  provider.isThere = true;
  provider.lock = 'six==1.17.0';
  const C = { executionId: 'c', attempt: 1 };
  for (const ref of [A, { executionId: 'b', attempt: 1 }]) table.assign(assignment(ref));
  expect(takeSent()).toMatchObject([{ case: 'lockFound', value: { ref: A, lock: 'six==1.17.0' } }]);
  table.onFinished(A, SUCCEEDED);
  table.linkDown();
  link();
  takeSent();
  table.assign(assignment(C));
  expect(takeSent()).toMatchObject([{ case: 'lockFound', value: { ref: C } }]);
});

test('what a former agent has prepared is held until the attempts that it left have ended', () => {
  const { table, executor, provider } = setUp();
  const finished = { executionId: 'b', attempt: 1 };
  table.onRecovered(executor, [
    { ...A, finished: false },
    { ...finished, finished: true },
  ]);
  expect(provider.held).toBe(1);
  table.onFinished(A, SUCCEEDED);
  expect(provider.held).toBe(0);
});

test('what is there already starts at once, and is held until the end', () => {
  const { table, executor, provider, told, onEnvironmentPrepared } = setUp();
  provider.isThere = true;
  table.assign(assignment(A));
  expect(executor.start.mock.calls[0]?.[1].start).toEqual({ key: 'venv-1' });
  expect(told()).toEqual([]);
  expect(onEnvironmentPrepared).toHaveBeenCalledWith({ environment: 'venv', cache: 'hit', prepareMs: 0 });
  table.onStarted(A);
  expect(provider.held).toBe(1);
  table.onFinished(A, SUCCEEDED);
  expect(provider.held).toBe(0);
});

test('an environment is prepared, with its output and progress, and then the code starts', async () => {
  const { table, executor, provider, told, takeSent, advance, onEnvironmentPrepared } = setUpPreparing();
  const { request, events, done } = provider.last;
  expect(request).toMatchObject({ tenant: 'acme', language: 'python', preload: ['six'] });
  expect(table.active, 'a slot is taken').toBe(1);
  expect(table.held()).toEqual([{ ref: A, finished: false }]);
  events.onOutput(Buffer.from('Collecting six\n'));
  events.onProgress(50, 'installing');
  events.onOutput(Buffer.from('done\n'));
  expect(told()).toEqual(['0 Collecting six\n', 'progress', '15 done\n']);
  advance(7000);
  done.resolve();
  await turn();
  const [started, prepared, prelude] = executor.start.mock.calls[0] ?? [];
  expect([started?.ref?.executionId, prepared?.start, Buffer.from(prelude ?? []).toString()]).toEqual([
    'a',
    { key: 'venv-1' },
    'Collecting six\ndone\n',
  ]);
  expect(onEnvironmentPrepared).toHaveBeenCalledWith({ environment: 'venv', cache: 'miss', prepareMs: 7000 });
  advance(1);
  table.onStarted(A);
  table.onOutput(A, 'stderr', 20, Buffer.from('from the code'));
  table.onFinished(A, { ...SUCCEEDED, stderrBytes: 33 });
  expect(takeSent()).toMatchObject([
    { case: 'started' },
    { case: 'log', value: { offset: 20n } },
    { case: 'result', value: { state: State.SUCCEEDED, prepareMs: 7001, stderrBytes: 33n } },
  ]);
  expect(provider.held).toBe(0);
});

test('output beyond the window waits for its acknowledgement, and the code for the output', async () => {
  const { executor, provider, told, stored } = setUpPreparing();
  const { events, done } = provider.last;
  events.onOutput(Buffer.alloc(MIB + 10));
  expect(told()).toHaveLength(16);
  done.resolve();
  await turn();
  expect(executor.start).not.toHaveBeenCalled();
  stored(65_536);
  expect(told()).toEqual([`${MIB} ..........`.replaceAll('.', '\0')]);
  expect(executor.start).toHaveBeenCalledTimes(1);
  expect(executor.acknowledgeOutput).toHaveBeenLastCalledWith(expect.objectContaining(A), 0, 65_536);
});

test('output beyond 4 MiB is cut off, and says so', async () => {
  const { provider, executor, told, stored } = setUpPreparing();
  provider.last.events.onOutput(Buffer.alloc(3 * MIB));
  provider.last.events.onOutput(Buffer.alloc(3 * MIB));
  provider.last.events.onOutput(Buffer.from('never seen'));
  provider.last.done.resolve();
  await turn();
  for (let at = 0; at <= 4 * MIB; at += MIB) stored(at);
  const marker = '\n[harrier: preparation output truncated after 4194304 bytes]\n';
  expect(told().at(-1)).toBe(`${4 * MIB} ${marker.length}`);
  const prelude = Buffer.from(executor.start.mock.calls[0]?.[2] ?? []);
  expect([prelude.length, prelude.subarray(4 * MIB).toString()]).toEqual([4 * MIB + marker.length, marker]);
});

test('a failure ends the attempt with its code and message, after all that was written', async () => {
  const { table, executor, provider, takeSent, advance, link } = setUpPreparing();
  provider.last.events.onOutput(Buffer.from('no such package\n'));
  advance(300);
  provider.last.done.reject(new EnvironmentError(Code.ENVIRONMENT_FAILED, 'No solution found: six==99'));
  await turn();
  const error = { code: Code.ENVIRONMENT_FAILED, message: 'No solution found: six==99' };
  const result = { case: 'result', value: { state: State.FAILED, error, stderrBytes: 16n, prepareMs: 300, runMs: 0 } };
  expect(takeSent()).toMatchObject([{ case: 'log' }, result]);
  expect(table.active).toBe(0);
  expect(table.held()).toEqual([{ ref: A, finished: true }]);
  table.linkDown();
  link(4);
  expect(takeSent(), 'again on a new link, from what is stored').toMatchObject([
    { case: 'log', value: { offset: 4n } },
    result,
  ]);
  table.resultStored(A);
  expect(table.size).toBe(0);
  link();
  expect(takeSent()).toEqual([]);
  expect(executor.start).not.toHaveBeenCalled();
});

test('a defect of a provider is told as one', async () => {
  const { provider, takeSent } = setUpPreparing();
  provider.last.done.reject(new TypeError('x is not a function'));
  await turn();
  const message = 'the environment could not be prepared: x is not a function';
  expect(takeSent()).toMatchObject([{ value: { state: State.FAILED, error: { code: Code.INTERNAL, message } } }]);
});

test('a cancel ends the attempt at once and leaves the preparation', async () => {
  const { provider, takeSent, cancel, table } = setUpPreparing();
  cancel();
  expect(takeSent()).toMatchObject([{ value: { state: State.CANCELLED, error: { code: Code.CANCELLED } } }]);
  expect(provider.last.signal.aborted).toBe(true);
  provider.last.events.onOutput(Buffer.from('for others'));
  provider.last.events.onProgress(99, 'for others');
  await turn();
  expect(takeSent()).toEqual([]);
  table.resultStored(A);
  expect([table.active, table.size]).toEqual([0, 0]);
});

test('an environment that comes when its attempt was cancelled is let go', async () => {
  const { provider, executor, cancel } = setUpPreparing();
  provider.last.done.resolve();
  cancel();
  await turn();
  expect(provider.held).toBe(0);
  expect(executor.start).not.toHaveBeenCalled();
});

test('a drop leaves the preparation and tells nothing, however much was written', async () => {
  const { table, provider, takeSent } = setUpPreparing();
  provider.last.events.onOutput(Buffer.alloc(3 * MIB));
  takeSent();
  table.drop(A, 'another agent has it');
  await turn();
  expect(provider.last.signal.aborted).toBe(true);
  expect(takeSent()).toEqual([]);
  expect([table.active, table.size]).toEqual([0, 0]);
});

test('a failed attempt that still has output to send can be dropped', async () => {
  const { table, provider } = setUpPreparing();
  provider.last.events.onOutput(Buffer.alloc(3 * MIB));
  provider.last.done.reject(new Error('failed'));
  await turn();
  expect(table.active).toBe(1);
  table.drop(A, 'another agent has it');
  expect([table.active, table.size]).toEqual([0, 0]);
});

test('a stop of the agent is nobody’s cancellation', () => {
  const { table, takeSent } = setUpPreparing();
  table.cancelAll(100);
  expect(takeSent()).toMatchObject([{ value: { state: State.FAILED, error: { code: Code.AGENT_LOST } } }]);
});

test('an agent that goes gives back what it still prepares', async () => {
  const { table, provider, takeSent } = setUpPreparing();
  table.giveBackPreparations();
  expect(takeSent()).toMatchObject([
    { case: 'rejected', value: { ref: A, requeue: true, error: { code: Code.SUBMIT_FAILED } } },
  ]);
  expect([provider.last.signal.aborted, table.active, table.size]).toEqual([true, 0, 0]);
  await turn();
  expect(takeSent()).toEqual([]);
});

test('a preparation that hangs ends after 30 minutes', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  onTestFinished(() => void vi.useRealTimers());
  const { provider, takeSent } = setUpPreparing();
  vi.advanceTimersByTime(30 * 60_000 - 1);
  expect(takeSent()).toEqual([]);
  vi.advanceTimersByTime(1);
  const message = 'the environment was not ready after 30 minutes';
  expect(takeSent()).toMatchObject([{ value: { error: { code: Code.ENVIRONMENT_FAILED, message } } }]);
  expect(provider.last.signal.aborted).toBe(true);
});

test('a lock is decided by the control plane, which is asked again on a new link', async () => {
  const { table, provider, takeSent, told, link } = setUpPreparing();
  const decided = provider.last.events.decideLock('six==1.17.0', 'py312');
  const value = { ref: A, lock: 'six==1.17.0', platform: 'py312' };
  expect(takeSent()).toMatchObject([{ case: 'lockFound', value }]);
  table.linkDown();
  link();
  expect(told()).toEqual(['preparing', 'lockFound']);
  table.lockDecided(create(LockDecidedSchema, { ref: A, lock: 'six==1.16.0' }));
  expect(await decided).toBe('six==1.16.0');
  table.linkDown();
  link();
  expect(told()).toEqual(['preparing']);
});

test('nobody waits for the lock of an attempt that was cancelled', async () => {
  const { provider, cancel } = setUpPreparing();
  const decided = provider.last.events.decideLock('six==1.17.0', 'py312');
  cancel();
  await expect(decided).rejects.toBe(provider.last.signal.reason);
  await expect(provider.last.events.decideLock('six==1.17.0', 'py312')).rejects.toBe(provider.last.signal.reason);
});

test('a new link hears of the preparation, its progress, and its output from what is stored', () => {
  const { table, provider, told, link } = setUpPreparing();
  table.linkDown();
  provider.last.events.onOutput(Buffer.from('Collecting six\n'));
  provider.last.events.onProgress(10, 'collecting');
  expect(told()).toEqual([]);
  link(11);
  expect(told()).toEqual(['preparing', 'progress', '11 six\n']);
});

test('an attempt that no executor can take by then is tried elsewhere', async () => {
  const refuse = { error: { code: Code.SUBMIT_FAILED, message: 'no launcher' }, requeue: true };
  const { table, provider, takeSent } = setUpPreparing({ refuse });
  provider.last.done.resolve();
  await turn();
  expect(takeSent()).toMatchObject([{ case: 'rejected', value: { requeue: true, error: refuse.error } }]);
  expect([table.active, table.size, provider.held]).toEqual([0, 0, 0]);
});

test('an attempt that cannot run at all fails with everything that was written', async () => {
  const refuse = { error: { code: Code.INPUT_INVALID, message: 'too large' }, requeue: false };
  const { table, provider, takeSent } = setUpPreparing({ refuse });
  provider.last.events.onOutput(Buffer.from('Collecting six\n'));
  provider.last.done.resolve();
  await turn();
  expect(takeSent().at(-1)).toMatchObject({
    case: 'result',
    value: { state: State.FAILED, error: refuse.error, stderrBytes: 15n },
  });
  expect([table.active, table.size, provider.held]).toEqual([0, 1, 0]);
});

test('an attempt whose environment this host cannot prepare now is tried elsewhere', () => {
  const { table, provider, takeSent } = setUp();
  provider.reason = 'uv is not there';
  table.assign(assignment(A));
  const message = 'no environment "venv" on this agent: uv is not there';
  expect(takeSent()).toMatchObject([
    { case: 'rejected', value: { requeue: true, error: { code: Code.SUBMIT_FAILED, message } } },
  ]);
});

describe('an environment that there is no room for', () => {
  const NO_ROOM = 'no room for the image a:1: 1 MiB free of 2 MiB needed on the disk of /srv/docker';
  const noRoom = () => new EnvironmentError(Code.ENVIRONMENT_FAILED, NO_ROOM, { elsewhere: true });
  const rejected = { case: 'rejected', value: { ref: A, requeue: true, error: { message: NO_ROOM } } };

  test('is handed back for another agent, and its slot is free', async () => {
    const { table, provider, takeSent, told } = setUp({ slots: 1 });
    table.assign(assignment(A));
    expect(told()).toEqual(['preparing']);
    provider.last.done.reject(noRoom());
    await turn();
    expect(takeSent()).toMatchObject([rejected]);
    expect([table.size, table.active]).toEqual([0, 0]);
    table.assign(assignment({ executionId: 'b', attempt: 1 }));
    expect(told()).toEqual(['preparing']);
  });

  test('is handed back over the next link when there is none', async () => {
    const { table, provider, takeSent, link } = setUpPreparing();
    table.linkDown();
    provider.last.done.reject(noRoom());
    await turn();
    expect(takeSent()).toEqual([]);
    expect(table.held()).toEqual([{ ref: A, finished: false }]);
    link();
    expect(takeSent().at(-1)).toMatchObject(rejected);
    expect(table.size).toBe(0);
  });

  test('ends without a word when a new link does not want it', async () => {
    const { table, provider, takeSent } = setUpPreparing();
    table.linkDown();
    provider.last.done.reject(noRoom());
    await turn();
    table.linkUp(create(WelcomeSchema, {}));
    expect(takeSent()).toEqual([]);
    expect(table.size).toBe(0);
  });
});

describe('the executor of jobs', () => {
  /** An agent that prepares the environment of a job. */
  function setUpJob(options: Parameters<typeof setUp>[0] = {}) {
    const parts = setUp({ ...options, kind: 'slurm' });
    parts.table.assign(assignment(A, true));
    expect(parts.executor.preparing.mock.calls).toMatchObject([[{ ref: A }]]);
    return parts;
  }

  test('knows of what is being prepared, until it is handed over', async () => {
    const { executor, provider } = setUpJob();
    provider.last.done.resolve();
    await vi.waitFor(() => expect(executor.start).toHaveBeenCalled());
    expect(executor.forget).not.toHaveBeenCalled();
  });

  test('forgets what goes to another agent', async () => {
    const { executor, provider, takeSent } = setUpJob();
    provider.last.done.reject(new EnvironmentError(Code.ENVIRONMENT_FAILED, 'no room', { elsewhere: true }));
    await vi.waitFor(() => expect(executor.forget).toHaveBeenCalledWith(expect.objectContaining(A)));
    expect(takeSent().map((message) => message.case)).toContain('rejected');
  });

  test('forgets what it does not take itself', async () => {
    const refuse = { error: { code: Code.SUBMIT_FAILED, message: 'away' }, requeue: true };
    const { executor, provider } = setUpJob({ refuse });
    provider.last.done.resolve();
    await vi.waitFor(() => expect(executor.forget).toHaveBeenCalledWith(expect.objectContaining(A)));
  });

  test('forgets what has failed when that is stored, not before', async () => {
    const { table, executor, provider, told } = setUpJob();
    provider.last.done.reject(new Error('broken'));
    await vi.waitFor(() => expect(told()).toContain('result'));
    expect(executor.forget).not.toHaveBeenCalled();
    table.resultStored(create(AttemptRefSchema, A));
    expect(executor.forget).toHaveBeenCalledWith(expect.objectContaining(A));
  });

  test('keeps what is given back because the agent goes: nobody knows whether that arrives', () => {
    const { table, executor, told } = setUpJob();
    table.giveBackPreparations();
    expect(told()).toContain('rejected');
    expect(executor.forget).not.toHaveBeenCalled();
  });
});
