import { create } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code, ExecutionErrorSchema } from '@harrier/shared/gen/error';
import { ExecutionSchema, Execution_State as State } from '@harrier/shared/gen/execution';
import { describe, expect, it } from 'vitest';
import { describeError, exitCodeOf, formatMs, stateName } from './describe.ts';
import { formatBytes } from './describe-execution.ts';
import { progressBar } from './status-line.ts';

describe('exitCodeOf', () => {
  it.each([
    [{ state: State.SUCCEEDED }, 0],
    [{ state: State.FAILED, error: { code: Code.HANDLER_ERROR } }, 1],
    [{ state: State.TIMED_OUT }, 124],
    [{ state: State.CANCELLED }, 130],
    [{ state: State.FAILED, error: { code: Code.EXIT_NONZERO }, exitCode: 7 }, 7],
    // Could not be started at all.
    [{ state: State.FAILED, error: { code: Code.EXIT_NONZERO } }, 1],
    // An interpreter's own end is no command's answer.
    [{ state: State.FAILED, error: { code: Code.KILLED }, exitCode: 9 }, 1],
  ])('follows the execution: %o', (execution, code) => {
    expect(exitCodeOf(create(ExecutionSchema, execution))).toBe(code);
  });
});

describe('describeError', () => {
  it('shows the traceback below the message', () => {
    const details = { traceback: 'Traceback …\n  File "code.py"\n' };
    const error = create(ExecutionErrorSchema, { code: Code.HANDLER_ERROR, message: 'ValueError: no', details });
    expect(describeError(error)).toBe('HANDLER_ERROR: ValueError: no\nTraceback …\n  File "code.py"');
  });

  it('leaves nothing to the terminal of what the code has chosen', () => {
    const message = 'a\u001b]0;title\u0007b\u001b[2Jc\rd\u0008e\u009b31mf\tg\nh';
    const error = create(ExecutionErrorSchema, { code: Code.HANDLER_ERROR, message });
    expect(describeError(error)).toBe('HANDLER_ERROR: abcdef\tg\nh');
  });
});

it('shows a state that only a newer control plane knows as its number', () => {
  expect(stateName(99 as State)).toBe('99');
});

it.each([
  [0.4, '0.4 ms'],
  [999.94, '999.9 ms'],
  [1500, '1.50 s'],
  [200_000, '3 min 20 s'],
  [7_500_000, '2 h 5 min'],
])('writes %d ms as %s', (ms, text) => {
  expect(formatMs(ms)).toBe(text);
});

it.each([
  [0n, '0 B'],
  [1536n, '1.5 KiB'],
  [3n * 1024n ** 4n, '3.0 TiB'],
])('writes %d bytes as %s', (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

it.each([
  [{ percent: 50, step: 'loading' }, '[████████████░░░░░░░░░░░░]  50 % loading'],
  [{ percent: -3, step: '' }, '[░░░░░░░░░░░░░░░░░░░░░░░░]   0 %'],
  [{ percent: 250, step: '' }, '[████████████████████████] 100 %'],
])('draws %o', (progress, bar) => {
  expect(progressBar(progress)).toBe(bar);
});
