import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { expect, test, vi } from 'vitest';
import type { FinishedMessage, WelcomeMessage } from '../launcher/messages.ts';
import type { Executor, ExecutorEvents } from './executor.ts';
import { launcherEvents } from './launcher-events.ts';

const FINISHED: FinishedMessage = {
  type: 'finished',
  execution: 'e',
  attempt: 1,
  outcome: 'failed',
  error: null,
  exit_code: null,
  signal: null,
  run_ms: 1.5,
  stdout: 1,
  stderr: 2,
  stdout_truncated: false,
  stderr_truncated: true,
  usage: null,
};

function setUp() {
  const events = { onFinished: vi.fn(), onRecovered: vi.fn(), onLost: vi.fn() };
  const facts = {
    onIsolation: vi.fn(),
    onLoad: vi.fn(),
    onLost: vi.fn(),
    onLauncher: vi.fn(),
    onAttached: vi.fn(),
    onDetached: vi.fn(),
    onPython: vi.fn(),
  };
  const executor = { kind: 'process' } as Executor;
  return {
    events,
    facts,
    executor,
    translated: launcherEvents(
      () => executor,
      events as never as ExecutorEvents,
      facts,
      () => NOW_MS,
    ),
  };
}

const NOW_MS = 1_000_000;
const WELCOME: WelcomeMessage = {
  type: 'welcome',
  protocol: 1,
  version: '1',
  pid: 1,
  isolation: 'none',
  python: '3.11.2',
  python_path: '/usr/bin/python3',
  cgroup_limits: ['memory'],
  attempts: [{ execution: 'e', attempt: 1, state: 'finished', stdout: 0, stderr: 0 }],
};

test.each([
  ['HANDLER_ERROR', Code.HANDLER_ERROR],
  ['OUT_OF_MEMORY', Code.OUT_OF_MEMORY],
  ['NEVER_HEARD_OF', Code.INTERNAL],
])('the error %s becomes code %s', (name, code) => {
  const { events, translated } = setUp();
  const error = { code: name, message: 'no', details: { type: 'ValueError' } };
  translated.onFinished({ ...FINISHED, error }, Buffer.from(''));
  expect(events.onFinished).toHaveBeenCalledWith(
    { executionId: 'e', attempt: 1 },
    expect.objectContaining({
      outcome: 'failed',
      error: { code, message: 'no', details: { type: 'ValueError' } },
      exitCode: undefined,
      runMs: 1.5,
      stderrBytes: 2,
      stderrTruncated: true,
      maxRssBytes: 0,
    }),
  );
});

test('an end before the start is told as one', () => {
  const { events, translated } = setUp();
  const key = { executionId: 'e', attempt: 1 };
  translated.onFinished({ ...FINISHED, never_started: true }, Buffer.from(''));
  expect(events.onFinished).toHaveBeenLastCalledWith(key, expect.objectContaining({ neverStarted: true }));
  translated.onFinished(FINISHED, Buffer.from(''));
  expect(events.onFinished.mock.lastCall?.[1]).not.toHaveProperty('neverStarted');
});

test('a welcome tells the isolation and what is held', () => {
  const { events, facts, executor, translated } = setUp();
  translated.onWelcome({
    ...WELCOME,
    attempts: [
      ...WELCOME.attempts,
      {
        ...{ execution: 'f', attempt: 2, state: 'running', stdout: 0, stderr: 0 },
        about: { tenant: 'acme', task_class: 'cpu_long', environment: 'venv', trace_parent: '00-1-2-01' },
      },
    ],
  });
  expect(facts.onIsolation).toHaveBeenCalledWith('none', ['memory']);
  const about = { tenant: 'acme', taskClass: 'cpu_long', environment: 'venv', traceParent: '00-1-2-01' };
  const held = [
    { executionId: 'e', attempt: 1, finished: true },
    { executionId: 'f', attempt: 2, finished: false, ...about },
  ];
  expect(events.onRecovered).toHaveBeenCalledWith(executor, held, true);
});

test.each([
  ['of the same process', { pid: 1, age_ms: 5_003 }, false],
  ['of a process with another number', { pid: 2, age_ms: 5_003 }, true],
  ['of a process with the same number that was started later', { pid: 1, age_ms: 2_000 }, true],
  ['of a process that does not tell its age', { pid: 1 }, true],
])('a later welcome is known as one %s', (_, later, isAnother) => {
  const { events, translated } = setUp();
  translated.onWelcome({ ...WELCOME, age_ms: 5_000 });
  translated.onWelcome({ ...WELCOME, ...later });
  expect(events.onRecovered.mock.calls.map(([, , another]) => another)).toEqual([true, isAnother]);
});
