import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { MAX_HELD_ATTEMPTS } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import {
  type AgentMessage,
  AssignmentSchema,
  AttemptRefSchema,
  CancelAttemptSchema,
  LogStoredSchema,
  WelcomeSchema,
} from '@harrier/shared/gen/link';
import { EnvironmentSchema } from '@harrier/shared/gen/module';
import { describe, expect, test, vi } from 'vitest';
import { EnvironmentRegistry } from '../environment/environment-registry.ts';
import { InlineEnvironment } from '../environment/inline-environment.ts';
import type { AttemptEnd, AttemptKey, Executor, StartRefusal } from '../executor/executor.ts';
import { ManualProvider } from '../test-support/manual-provider.ts';
import { silentLogger } from '../test-support/silent-logger.ts';
import { AttemptTable, type AttemptTableOptions } from './attempt-table.ts';

const A: AttemptKey = { executionId: 'a', attempt: 1 };
const B: AttemptKey = { executionId: 'b', attempt: 2 };

function succeeded(output = '{}'): AttemptEnd {
  return {
    outcome: 'succeeded',
    error: undefined,
    exitCode: undefined,
    output: Buffer.from(output),
    runMs: 12,
    cpuMs: 3,
    maxRssBytes: 4096,
    stdoutBytes: 0,
    stderrBytes: 0,
    stdoutTruncated: false,
    stderrTruncated: false,
  };
}

function setUp(options: { slots?: number; refuse?: StartRefusal } = {}) {
  const executor = {
    kind: 'process' as const,
    start: vi.fn<Executor['start']>(() => options.refuse),
    cancel: vi.fn<Executor['cancel']>(),
    acknowledgeOutput: vi.fn<Executor['acknowledgeOutput']>(),
    forget: vi.fn<Executor['forget']>(),
    replay: vi.fn<Executor['replay']>(),
  };
  const environments = new EnvironmentRegistry(() => {});
  environments.add(new InlineEnvironment());
  const provider = new ManualProvider();
  environments.add(provider);
  const sent: AgentMessage['message'][] = [];
  const onFinished = vi.fn();
  const onQuiet = vi.fn();
  const gpus = {
    reserve: vi.fn<AttemptTableOptions['gpus']['reserve']>(() => undefined),
    adopt: vi.fn<AttemptTableOptions['gpus']['adopt']>(),
    giveBack: vi.fn<AttemptTableOptions['gpus']['giveBack']>(),
    release: vi.fn<AttemptTableOptions['gpus']['release']>(),
  };
  let nowMs = 0;
  const table = new AttemptTable({
    slots: options.slots ?? 2,
    environments,
    caps: { cpu: 4, memoryBytes: 1000, tmpBytes: 1000, network: 'none' },
    gpus,
    send: ({ message }) => sent.push(message),
    onFinished,
    onEnvironmentPrepared: vi.fn(),
    onQuiet,
    onForgotten: vi.fn(),
    logger: silentLogger(),
    nowMs: () => nowMs,
  });
  table.addExecutor(executor);
  return {
    table,
    executor,
    provider,
    gpus,
    onFinished,
    onQuiet,
    advance: (ms: number) => {
      nowMs += ms;
    },
    /** What was sent since the last look, as `kind execution/attempt`. */
    told: () => sent.splice(0).map((message) => `${message.case} ${nameOf(message)}`),
    takeSent: () => sent.splice(0),
    link: (welcome: MessageInitShape<typeof WelcomeSchema> = {}) => table.linkUp(create(WelcomeSchema, welcome)),
    /** A link that is up and has been told everything. */
    linkAndReplay: (held: (AttemptKey & { finished: boolean })[] = []) => {
      table.linkUp(
        create(WelcomeSchema, { resume: held.map(({ executionId, attempt }) => ({ ref: { executionId, attempt } })) }),
      );
      table.onRecovered(executor, held);
    },
  };
}

function nameOf(message: AgentMessage['message']): string {
  const ref = message.value !== undefined && 'ref' in message.value ? message.value.ref : undefined;
  return `${ref?.executionId}/${ref?.attempt}`;
}

function assignment(ref: AttemptKey, memoryBytes = 1000n, maxDisconnectMs = 0, gpuUuids: string[] = []) {
  return create(AssignmentSchema, {
    maxDisconnect: durationFromMs(maxDisconnectMs),
    ref,
    tenant: 'acme',
    taskClass: 'cpu_short',
    program: { case: 'python', value: { source: '', handler: 'handler' } },
    environment: { kind: { case: 'inline', value: {} } },
    limits: { memoryBytes, tmpBytes: 1000n, gpus: gpuUuids.length },
    gpuUuids,
  });
}

describe('an attempt', () => {
  test('goes from its assignment to its stored result', () => {
    const { table, executor, told, takeSent, linkAndReplay, onFinished, advance } = setUp();
    linkAndReplay();
    table.assign(assignment(A));
    expect(executor.start).toHaveBeenCalledTimes(1);
    expect(table.active).toBe(1);
    advance(7);
    table.onStarted(A);
    table.onOutput(A, 'stdout', 0, Buffer.from('hello'));
    table.onProgress(A, 50, 'half');
    expect(told()).toEqual(['started a/1', 'log a/1', 'progress a/1']);
    table.logStored(create(LogStoredSchema, { ref: A, stdoutOffset: 5n }));
    expect(executor.acknowledgeOutput).toHaveBeenLastCalledWith(expect.objectContaining(A), 5, 0);
    table.onFinished(A, { ...succeeded('{"x":1}'), stdoutBytes: 5 });
    const [result] = takeSent();
    expect(result).toMatchObject({
      case: 'result',
      value: {
        state: State.SUCCEEDED,
        prepareMs: 7,
        runMs: 12,
        stdoutBytes: 5n,
        usage: { cpuMs: 3, maxRssBytes: 4096n },
      },
    });
    expect(result?.case === 'result' && Buffer.from(result.value.outputJson).toString()).toBe('{"x":1}');
    expect(onFinished).toHaveBeenCalledWith({
      taskClass: 'cpu_short',
      environment: 'inline',
      tenant: 'acme',
      outcome: 'succeeded',
      runMs: 12,
      traceParent: '',
    });
    expect([table.active, table.size]).toEqual([0, 1]);
    expect(executor.forget).not.toHaveBeenCalled();
    table.resultStored(A);
    expect(executor.forget).toHaveBeenCalledWith(expect.objectContaining(A));
    expect(table.size).toBe(0);
  });

  test('that is assigned twice is started once', () => {
    const { table, executor, linkAndReplay } = setUp();
    linkAndReplay();
    table.assign(assignment(A));
    table.assign(assignment(A));
    expect(executor.start).toHaveBeenCalledTimes(1);
  });

  test('is cancelled with its grace, and its result is told', () => {
    const { table, executor, told, linkAndReplay } = setUp();
    linkAndReplay();
    table.assign(assignment(A));
    table.cancel(create(CancelAttemptSchema, { ref: A, grace: { seconds: 5n } }));
    expect(executor.cancel).toHaveBeenCalledWith(expect.objectContaining(A), 'cancel', 5000);
    table.onFinished(A, {
      ...succeeded(),
      outcome: 'cancelled',
      error: { code: Code.CANCELLED, message: 'cancelled' },
    });
    expect(told()).toEqual(['result a/1']);
  });

  test('that is dropped is killed and told nothing of', () => {
    const { table, executor, told, linkAndReplay } = setUp();
    linkAndReplay();
    table.assign(assignment(A));
    table.drop(A, 'another agent has it');
    expect(executor.cancel).toHaveBeenCalledWith(expect.objectContaining(A), 'cancel', 0);
    expect(table.held()).toEqual([]);
    table.onStarted(A);
    table.onOutput(A, 'stdout', 0, Buffer.from('late'));
    table.onFinished(A, succeeded());
    expect(told()).toEqual([]);
    expect(executor.forget).toHaveBeenCalledTimes(1);
    expect([table.active, table.size]).toEqual([0, 0]);
  });

  test('that is dropped is waited for without its output, which nobody stores', () => {
    const { table, executor, linkAndReplay } = setUp();
    linkAndReplay();
    table.assign(assignment(A));
    table.onStarted(A);
    table.onOutput(A, 'stdout', 0, Buffer.from('not stored'));
    table.drop(A, 'another agent has it');
    const everything = [expect.objectContaining(A), Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER];
    expect(executor.acknowledgeOutput.mock.calls).toEqual([everything]);
    table.onOutput(A, 'stdout', 10, Buffer.from('late'));
    expect(executor.acknowledgeOutput.mock.calls).toEqual([everything, everything]);
  });

  test('whose result the control plane has without the agent is stopped', () => {
    const { table, executor, linkAndReplay } = setUp();
    linkAndReplay();
    table.assign(assignment(A));
    table.resultStored(A);
    expect(executor.cancel).toHaveBeenCalledTimes(1);
  });
});

describe('an assignment is sent back', () => {
  test.each([
    ['when all slots are taken', (t: AttemptTable) => t.assign(assignment(B)), 'the agent is full'],
    ['while the agent stops', (t: AttemptTable) => t.setClosed('the agent is stopping'), 'the agent is stopping'],
  ])('%s', (_, prepare, reason) => {
    const { table, takeSent, linkAndReplay } = setUp({ slots: 1 });
    linkAndReplay();
    prepare(table);
    table.assign(assignment(A));
    expect(takeSent().at(-1)).toMatchObject({
      case: 'rejected',
      value: { ref: A, requeue: true, error: { code: Code.SUBMIT_FAILED, message: reason } },
    });
  });

  test('to be tried elsewhere, when the agent does not have its environment', () => {
    const { table, takeSent, linkAndReplay } = setUp();
    linkAndReplay();
    const environment = create(EnvironmentSchema, { kind: { case: 'conda', value: {} } });
    table.assign({ ...assignment(A), environment });
    const message = 'this agent has no environment "conda"; it has inline, venv';
    expect(takeSent()).toMatchObject([
      { case: 'rejected', value: { requeue: true, error: { code: Code.SUBMIT_FAILED, message } } },
    ]);
  });

  test('for good, and before it starts, when it asks for more than this agent allows', () => {
    const { table, executor, takeSent, linkAndReplay } = setUp();
    linkAndReplay();
    table.assign(assignment(A, 1001n));
    const message = expect.stringMatching(/limits\.memory_bytes asks for 1001 bytes; this agent allows at most 1000 /);
    expect(takeSent()).toMatchObject([
      { case: 'rejected', value: { requeue: false, error: { code: Code.POLICY_DENIED, message } } },
    ]);
    expect(executor.start).not.toHaveBeenCalled();
  });

  test('when the executor refuses it', () => {
    const refuse = { error: { code: Code.POLICY_DENIED, message: 'not here' }, requeue: false };
    const { table, takeSent, linkAndReplay } = setUp({ refuse });
    linkAndReplay();
    table.assign(assignment(A));
    expect(takeSent()).toMatchObject([{ case: 'rejected', value: { requeue: false, error: refuse.error } }]);
    expect(table.size).toBe(0);
  });
});

describe('a new link', () => {
  test('hears everything again from what is stored, and nothing before the replay', () => {
    const { table, executor, told, link } = setUp();
    link();
    table.onRecovered(executor, []);
    table.assign(assignment(A));
    table.assign(assignment(B));
    table.onStarted(A);
    told();
    table.linkDown();
    table.onOutput(A, 'stdout', 0, Buffer.from('lost'));
    table.onStarted(B);
    table.onFinished(B, succeeded());
    expect(told()).toEqual([]);
    expect(table.held()).toEqual([
      { ref: A, finished: false },
      { ref: B, finished: true },
    ]);
    link({ resume: [{ ref: A, stdoutOffset: 2n }, { ref: B }] });
    expect(executor.acknowledgeOutput).toHaveBeenCalledWith(expect.objectContaining(A), 2, 0);
    expect(executor.replay).toHaveBeenCalledTimes(2);
    table.onOutput(A, 'stdout', 4, Buffer.from('still under way'));
    expect(told()).toEqual([]);
    table.onRecovered(executor, [
      { ...A, finished: false },
      { ...B, finished: true },
    ]);
    table.onOutput(A, 'stdout', 2, Buffer.from('st'));
    table.onFinished(B, succeeded());
    expect(told()).toEqual(['started a/1', 'log a/1', 'result b/2']);
  });

  test('drops what the control plane does not want any more', () => {
    const { table, executor, link } = setUp();
    link();
    table.onRecovered(executor, []);
    table.assign(assignment(A));
    table.assign(assignment(B));
    table.onFinished(B, succeeded());
    table.linkDown();
    link({ drop: [A] });
    expect(executor.cancel).toHaveBeenCalledWith(expect.objectContaining(A), 'cancel', 0);
    expect(executor.forget).toHaveBeenCalledWith(expect.objectContaining(B));
  });

  test('to a database that has less than before stops what has written the rest, and tells it as lost when it is gone', () => {
    const { table, executor, told, takeSent, link, linkAndReplay } = setUp();
    linkAndReplay();
    table.assign(assignment(A));
    table.onStarted(A);
    table.onOutput(A, 'stdout', 0, Buffer.from('0123456789'));
    table.logStored(create(LogStoredSchema, { ref: A, stdoutOffset: 10n }));
    table.linkDown();
    link({ resume: [{ ref: A, stdoutOffset: 4n }] });
    table.onRecovered(executor, [{ ...A, finished: false }]);
    told();
    table.onOutput(A, 'stdout', 10, Buffer.from('more'));
    table.onOutput(A, 'stdout', 14, Buffer.from('and more'));
    expect(told()).toEqual([]);
    expect(executor.cancel.mock.calls).toEqual([[expect.objectContaining(A), 'shutdown', 0]]);
    const everything = [expect.objectContaining(A), Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER];
    expect(executor.acknowledgeOutput).toHaveBeenLastCalledWith(...everything);
    table.onFinished(A, { ...succeeded(), stdoutBytes: 22 });
    expect(takeSent()).toMatchObject([
      { case: 'result', value: { state: State.FAILED, stdoutBytes: 4n, error: { code: Code.AGENT_LOST } } },
    ]);
    table.resultStored(A);
    expect(table.size).toBe(0);
  });

  test('to a database that has less than before tells a result as lost whose output is gone', () => {
    const { table, executor, takeSent, link } = setUp();
    link({ resume: [{ ref: A, stderrOffset: 3n }] });
    table.onRecovered(executor, [{ ...A, finished: true }]);
    table.linkDown();
    link({ resume: [{ ref: A, stderrOffset: 3n }] });
    table.onRecovered(executor, [{ ...A, finished: true }]);
    table.onFinished(A, { ...succeeded(), stderrBytes: 5 });
    expect(takeSent()).toMatchObject([
      { case: 'result', value: { state: State.FAILED, stderrBytes: 3n, error: { code: Code.AGENT_LOST } } },
    ]);
    expect(executor.cancel).not.toHaveBeenCalled();
  });

  test('counts an attempt that ended while there was none once in the metrics', () => {
    const { table, executor, link, onFinished, linkAndReplay } = setUp();
    linkAndReplay();
    table.assign(assignment(A));
    table.linkDown();
    table.onFinished(A, succeeded());
    link({ resume: [{ ref: A }] });
    table.onRecovered(executor, [{ ...A, finished: true }]);
    table.onFinished(A, succeeded());
    expect(onFinished).toHaveBeenCalledTimes(1);
  });
});

describe('an agent that starts again', () => {
  test('takes over what the launcher runs and has finished', () => {
    const { table, executor, told, link } = setUp({ slots: 1 });
    table.onRecovered(executor, [
      { ...A, finished: false },
      { ...B, finished: true },
    ]);
    expect(table.held()).toEqual([
      { ref: A, finished: false },
      { ref: B, finished: true },
    ]);
    expect(table.active).toBe(1);
    link({ resume: [{ ref: A }, { ref: B }] });
    table.onRecovered(executor, [
      { ...A, finished: false },
      { ...B, finished: true },
    ]);
    table.onFinished(B, succeeded());
    expect(told()).toEqual(['started a/1', 'result b/2']);
  });
});

test('an attempt that its keeper still lets wait is not told as started, and can be given back', () => {
  const { table, executor, told, takeSent, link } = setUp();
  table.onRecovered(executor, [{ ...A, finished: false, started: false }]);
  link({ resume: [{ ref: A }] });
  table.onRecovered(executor, [{ ...A, finished: false, started: false }]);
  expect(told()).toEqual([]);
  expect(table.active).toBe(1);
  expect(table.onRefused(A, { code: Code.SUBMIT_FAILED, message: 'no place' })).toBe(true);
  expect(takeSent()).toMatchObject([{ case: 'rejected', value: { ref: A, requeue: true } }]);
  expect([table.active, table.size]).toEqual([0, 0]);
});

describe('a launcher that was lost', () => {
  test('and in whose place another one answers: what was handed over fails, for it may have started, as what ran does', () => {
    const { table, executor, takeSent, link, linkAndReplay } = setUp();
    linkAndReplay();
    table.assign(assignment(A));
    table.assign(assignment(B));
    table.onStarted(B);
    table.logStored(create(LogStoredSchema, { ref: B, stdoutOffset: 9n }));
    takeSent();
    table.onLost(executor);
    table.onRecovered(executor, [], true);
    const error = { code: Code.AGENT_LOST };
    expect(takeSent()).toMatchObject([
      { case: 'result', value: { ref: A, state: State.FAILED, error, stdoutBytes: 0n } },
      { case: 'result', value: { ref: B, state: State.FAILED, error, stdoutBytes: 9n } },
    ]);
    expect([table.active, table.size]).toEqual([0, 2]);
    table.linkDown();
    link({ resume: [{ ref: A }, { ref: B, stdoutOffset: 9n }] });
    table.onRecovered(executor, []);
    // In the same words as before, also where those were not heard.
    expect(takeSent()).toMatchObject([
      { case: 'result', value: { ref: A, error: { message: expect.stringContaining('may have started') } } },
      { case: 'result', value: { ref: B, error: { message: expect.stringContaining('that ran it') } } },
    ]);
    for (const ref of [A, B]) table.resultStored(create(AttemptRefSchema, ref));
    expect(table.size).toBe(0);
  });

  test('and answers again: what has not come there is sent back, and what it does not run any more fails', () => {
    const { table, executor, takeSent, linkAndReplay } = setUp();
    linkAndReplay();
    table.assign(assignment(A));
    table.assign(assignment(B));
    table.onStarted(B);
    table.logStored(create(LogStoredSchema, { ref: B, stdoutOffset: 9n }));
    takeSent();
    table.onLost(executor);
    table.onRecovered(executor, []);
    expect(takeSent()).toMatchObject([
      { case: 'rejected', value: { ref: A, requeue: true } },
      { case: 'result', value: { ref: B, state: State.FAILED, error: { code: Code.AGENT_LOST }, stdoutBytes: 9n } },
    ]);
    expect([table.active, table.size]).toEqual([0, 1]);
    table.resultStored(B);
    expect(table.size).toBe(0);
  });

  test('during a broken link fails them on the next one', () => {
    const { table, executor, told, link, linkAndReplay } = setUp();
    linkAndReplay();
    table.assign(assignment(A));
    table.onStarted(A);
    table.linkDown();
    table.onLost(executor);
    table.onRecovered(executor, []);
    told();
    link({ resume: [{ ref: A }] });
    table.onRecovered(executor, []);
    expect(told()).toEqual(['result a/1']);
  });

  test('is asked again to cancel', () => {
    const { table, executor, linkAndReplay } = setUp();
    linkAndReplay();
    table.assign(assignment(A));
    table.cancel(create(CancelAttemptSchema, { ref: A, grace: { seconds: 1n } }));
    table.onLost(executor);
    table.onRecovered(executor, [{ ...A, finished: false }]);
    expect(executor.cancel).toHaveBeenCalledTimes(2);
  });
});

test('an attempt of a former agent counts as what its keeper knows of it', () => {
  const { table, executor, onFinished, linkAndReplay } = setUp();
  const about = { tenant: 'acme', taskClass: 'cpu_long', environment: 'venv', traceParent: '00-1-2-01' };
  linkAndReplay();
  table.onRecovered(executor, [
    { ...A, ...about, finished: false },
    { ...B, finished: false },
  ]);
  table.onFinished(A, succeeded());
  table.onFinished(B, succeeded());
  const unknown = { tenant: '', taskClass: 'unknown', environment: 'unknown', traceParent: '' };
  expect(onFinished.mock.calls).toMatchObject([[about], [unknown]]);
});

describe('an attempt of a former agent that has not started', () => {
  function setUpFound() {
    const parts = setUp();
    const found = { ...A, finished: false, started: false };
    parts.table.onRecovered(parts.executor, [found]);
    expect(parts.table.held()).toEqual([{ ref: A, finished: false }]);
    parts.link({ resume: [{ ref: A, stderrOffset: 5n }] });
    parts.table.onRecovered(parts.executor, [found]);
    expect(parts.told(), 'its start is not told').toEqual([]);
    return parts;
  }

  test('is given back when there is nothing of it', () => {
    const { table, told } = setUpFound();
    expect(table.onRefused(A, { code: Code.SUBMIT_FAILED, message: 'not submitted' })).toBe(true);
    expect(told()).toEqual(['rejected a/1']);
    expect(table.size).toBe(0);
  });

  test('goes on when it starts, with its log where the former agent has left it', () => {
    const { table, told } = setUpFound();
    table.onStarted(A);
    table.onOutput(A, 'stderr', 5, Buffer.from('more'));
    table.onFinished(A, { ...succeeded(), stderrBytes: 9 });
    expect(told()).toEqual(['started a/1', 'log a/1', 'result a/1']);
  });
});

test('an attempt that is handed over while a replay is under way is not taken for lost', () => {
  const { table, executor, told, link } = setUp();
  link();
  table.assign(assignment(A));
  table.onRecovered(executor, []);
  table.onStarted(A);
  table.onFinished(A, succeeded());
  expect(told()).toEqual(['started a/1', 'result a/1']);
});

test('what is stopped with the agent was not cancelled by anybody, what a caller cancelled was', () => {
  const { table, takeSent, linkAndReplay } = setUp();
  linkAndReplay();
  table.assign(assignment(A));
  table.assign(assignment(B));
  table.cancel(create(CancelAttemptSchema, { ref: B, grace: { seconds: 60n } }));
  table.cancelAll(100);
  const cancelled: AttemptEnd = { ...succeeded(), outcome: 'cancelled', error: { code: Code.CANCELLED, message: '' } };
  table.onFinished(A, cancelled);
  table.onFinished(B, cancelled);
  expect(takeSent()).toMatchObject([
    { value: { ref: A, state: State.FAILED, error: { code: Code.AGENT_LOST, message: 'the agent was stopped' } } },
    { value: { ref: B, state: State.CANCELLED, error: { code: Code.CANCELLED } } },
  ]);
});

test('what is stopped with the agent before it has begun is given back, unless a caller cancelled it', () => {
  const { table, executor, takeSent, linkAndReplay, onFinished } = setUp({ slots: 3 });
  const C = { executionId: 'c', attempt: 1 };
  linkAndReplay();
  for (const ref of [A, B, C]) table.assign(assignment(ref));
  table.onStarted(C);
  takeSent();
  table.cancel(create(CancelAttemptSchema, { ref: B, grace: { seconds: 60n } }));
  table.cancelAll(100);
  const stopped = { code: Code.AGENT_LOST, message: 'The agent stopped it' };
  table.onFinished(A, { ...succeeded(), outcome: 'failed', error: stopped, neverStarted: true });
  const error = { code: Code.CANCELLED, message: '' };
  table.onFinished(B, { ...succeeded(), outcome: 'cancelled', error, neverStarted: true });
  table.onFinished(C, { ...succeeded(), outcome: 'failed', error: stopped });
  expect(takeSent()).toMatchObject([
    { case: 'rejected', value: { ref: A, requeue: true, error: { message: 'the agent was stopped' } } },
    { case: 'result', value: { ref: B, state: State.CANCELLED } },
    { case: 'result', value: { ref: C, error: { code: Code.AGENT_LOST } } },
  ]);
  expect(executor.forget.mock.calls).toEqual([[expect.objectContaining(A)]]);
  expect(onFinished).toHaveBeenCalledTimes(2);
  expect([table.active, table.size]).toEqual([0, 2]);
});

test('what has not begun and cannot be given back without a link has failed', () => {
  const { table, executor, takeSent, link, linkAndReplay } = setUp();
  linkAndReplay();
  table.assign(assignment(A));
  table.linkDown();
  table.cancelAll(100);
  const error = { code: Code.AGENT_LOST, message: 'The agent stopped it' };
  const end = { ...succeeded(), outcome: 'failed', error, neverStarted: true } as const;
  table.onFinished(A, end);
  takeSent();
  link({ resume: [{ ref: A }] });
  table.onRecovered(executor, [{ ...A, finished: true }]);
  table.onFinished(A, end);
  expect(takeSent()).toMatchObject([{ case: 'result', value: { ref: A, error: { code: Code.AGENT_LOST } } }]);
});

test('the end of the lease stops what may not go on for so long, once, and as nobody cancelled it', () => {
  const { table, executor, takeSent, linkAndReplay } = setUp();
  linkAndReplay();
  table.assign(assignment(A, 1000n, 60_000));
  table.assign(assignment(B));
  table.stopBeyondLease(-1, 50);
  expect(executor.cancel).not.toHaveBeenCalled();
  for (const beyondMs of [0, 59_999]) table.stopBeyondLease(beyondMs, 50);
  expect(executor.cancel.mock.calls).toEqual([[expect.objectContaining(B), 'shutdown', 50]]);
  table.stopBeyondLease(60_000, 50);
  expect(executor.cancel).toHaveBeenLastCalledWith(expect.objectContaining(A), 'shutdown', 50);
  const byLauncher = { code: Code.AGENT_LOST, message: 'The agent stopped it' };
  table.onFinished(B, { ...succeeded(), outcome: 'failed', error: byLauncher });
  table.onFinished(A, succeeded());
  expect(takeSent()).toMatchObject([
    {
      value: {
        ref: B,
        error: {
          code: Code.AGENT_LOST,
          message: 'its agent could not reach the control plane for longer than it may go on',
        },
      },
    },
    { value: { ref: A, state: State.SUCCEEDED } },
  ]);
});

test('a stop cancels everything that runs, and the table is quiet when it has ended', () => {
  const { table, executor, onQuiet, linkAndReplay } = setUp();
  linkAndReplay();
  table.assign(assignment(A));
  table.assign(assignment(B));
  table.cancelAll(100);
  expect(executor.cancel.mock.calls.map(([, reason, graceMs]) => [reason, graceMs])).toEqual([
    ['shutdown', 100],
    ['shutdown', 100],
  ]);
  table.onFinished(A, succeeded());
  expect(onQuiet).not.toHaveBeenCalled();
  table.onFinished(B, succeeded());
  expect(onQuiet).toHaveBeenCalled();
});

test('what the agent holds is bounded: results that are not stored leave no room for more attempts', () => {
  const { table, executor, told, link } = setUp();
  link();
  told();
  const key = (n: number): AttemptKey => ({ executionId: `e${n}`, attempt: 1 });
  for (let n = 0; n < MAX_HELD_ATTEMPTS; n++) {
    table.assign(assignment(key(n)));
    table.onFinished(key(n), succeeded());
  }
  expect([table.active, table.size]).toEqual([0, MAX_HELD_ATTEMPTS]);
  told();
  table.assign(assignment(A));
  expect(told()).toEqual([expect.stringContaining('rejected')]);
  table.resultStored(create(AttemptRefSchema, key(0)));
  table.assign(assignment(A));
  expect(executor.start).toHaveBeenCalledTimes(MAX_HELD_ATTEMPTS + 1);
});

describe('cards', () => {
  const withCards = (ref: AttemptKey) => assignment(ref, 1000n, 0, ['GPU-a']);

  test('are the attempt’s from its assignment to its end', () => {
    const { table, executor, gpus, linkAndReplay, takeSent } = setUp();
    linkAndReplay();
    table.assign(withCards(A));
    expect(gpus.reserve).toHaveBeenCalledWith(expect.objectContaining(A), ['GPU-a']);
    expect(table.held()).toMatchObject([{ ref: A, gpuUuids: ['GPU-a'] }]);
    table.onStarted(A);
    table.onFinished(A, succeeded());
    expect(gpus.release).toHaveBeenCalledWith(expect.objectContaining(A), undefined);
    expect(table.held()).toEqual([{ ref: A, finished: true }]);
    expect(executor.start).toHaveBeenCalledTimes(1);
    expect(takeSent().at(-1)).toMatchObject({ case: 'result' });
  });

  test('that are not free send the assignment back with the reason', () => {
    const { table, executor, gpus, linkAndReplay, takeSent } = setUp();
    linkAndReplay();
    gpus.reserve.mockReturnValueOnce('GPU GPU-a is in use by attempt 1 of execution b');
    table.assign(withCards(A));
    expect(executor.start).not.toHaveBeenCalled();
    expect(takeSent()).toMatchObject([
      {
        case: 'rejected',
        value: { requeue: true, error: { message: 'GPU GPU-a is in use by attempt 1 of execution b' } },
      },
    ]);
  });

  test('are given back when the executor does not take the attempt', () => {
    const { table, gpus, linkAndReplay } = setUp({
      refuse: { error: { code: Code.SUBMIT_FAILED, message: 'no' }, requeue: true },
    });
    linkAndReplay();
    table.assign(withCards(A));
    expect(gpus.giveBack).toHaveBeenCalledWith(expect.objectContaining(A));
    expect(gpus.release).not.toHaveBeenCalled();
  });

  /** An attempt whose environment is being prepared. */
  function preparing(refuse?: StartRefusal) {
    const parts = setUp(refuse === undefined ? {} : { refuse });
    parts.linkAndReplay();
    const assigned = withCards(A);
    assigned.environment = create(EnvironmentSchema, { kind: { case: 'venv', value: {} } });
    parts.table.assign(assigned);
    return parts;
  }

  test('are given back when the preparation is cancelled before anything has had them', () => {
    const { table, gpus } = preparing();
    table.cancel(create(CancelAttemptSchema, { ref: A }));
    expect(gpus.giveBack).toHaveBeenCalledWith(expect.objectContaining(A));
  });

  test('that something prepared has are checked after a cancellation, when it is gone', () => {
    const { table, gpus, provider } = preparing();
    const gone = new Promise<void>(() => {});
    provider.last.events.onGpusTaken(gone);
    table.cancel(create(CancelAttemptSchema, { ref: A }));
    expect(gpus.release.mock.calls[0]).toEqual([expect.objectContaining(A), gone]);
    expect(gpus.giveBack).not.toHaveBeenCalled();
  });

  test.each([true, false])(
    'that something prepared has are checked when the start fails (requeue: %s)',
    async (requeue) => {
      const { gpus, provider } = preparing({ error: { code: Code.SUBMIT_FAILED, message: 'no' }, requeue });
      const gone = new Promise<void>(() => {});
      provider.last.events.onGpusTaken(gone);
      provider.last.done.resolve();
      await vi.waitFor(() => expect(gpus.release).toHaveBeenCalled());
      expect(gpus.release.mock.calls[0]).toEqual([expect.objectContaining(A), gone]);
      expect(gpus.giveBack).not.toHaveBeenCalled();
      expect(provider.held).toBe(0);
    },
  );

  test('that something prepared has are checked after the attempt when it is gone', async () => {
    const { table, executor, gpus, provider } = preparing();
    const gone = new Promise<void>(() => {});
    provider.last.events.onGpusTaken(gone);
    provider.last.done.resolve();
    await vi.waitFor(() => expect(executor.start).toHaveBeenCalled());
    table.onStarted(A);
    table.onFinished(A, succeeded());
    expect(gpus.release.mock.calls[0]).toEqual([expect.objectContaining(A), gone]);
  });

  test('of attempts that a former agent has started are theirs, and checked when they have ended', () => {
    const { table, executor, gpus } = setUp();
    table.onRecovered(executor, [
      { ...A, finished: false, gpuUuids: ['GPU-a'] },
      { ...B, finished: true, gpuUuids: ['GPU-b'] },
    ]);
    expect(gpus.adopt.mock.calls).toEqual([
      [A, ['GPU-a']],
      [B, ['GPU-b']],
    ]);
    expect(gpus.release.mock.calls).toEqual([[B]]);
    expect(table.held()).toContainEqual({ ref: A, finished: false, gpuUuids: ['GPU-a'] });
  });
});
