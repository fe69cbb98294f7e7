import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { expect, test } from 'vitest';
import { containerOutcome } from './container-outcome.ts';

/** What becomes of an answer on standard output. */
function outcomeOf(answer: object, exit = { exitCode: 0, oomKilled: false, runMs: 1 }) {
  const told = { stdout: Buffer.from(JSON.stringify(answer)), stdoutTruncated: false, outputBytes: 1000 };
  const container = { program: 'protocol', ending: undefined, file: '', engineLost: false } as const;
  return containerOutcome({ ...container, ...told, exit, timeoutMs: 0, memoryBytes: 1000 });
}

const EXCEPTION = { type: 'RangeError', traceback: 'RangeError: too far\n    at handler (module.js:2:9)' };

test.each([
  ['a handler that threw', 'HANDLER_ERROR', EXCEPTION, Code.HANDLER_ERROR, EXCEPTION],
  ['a handler that is missing', 'HANDLER_NOT_FOUND', {}, Code.HANDLER_NOT_FOUND, {}],
  ['a handler without memory', 'OUT_OF_MEMORY', {}, Code.OUT_OF_MEMORY, {}],
  ['a code of its own', 'E7', [1], Code.HANDLER_ERROR, { code: 'E7', details: [1] }],
  [
    'a code of its own, which is that of an object',
    'toString',
    {},
    Code.HANDLER_ERROR,
    { code: 'toString', details: {} },
  ],
  ['details that are no object', 'INPUT_INVALID', 'line 3', Code.INPUT_INVALID, { details: 'line 3' }],
  ['no details', 'INPUT_INVALID', undefined, Code.INPUT_INVALID, {}],
  ['a code that is not its to give', 'AGENT_LOST', {}, Code.HANDLER_ERROR, { code: 'AGENT_LOST', details: {} }],
])('an answer that tells of %s', (_, code, details, expected, shown) => {
  expect(outcomeOf({ ok: false, error: { code, message: 'm', details } })).toMatchObject({
    outcome: 'failed',
    error: { code: expected, message: 'm', details: shown },
  });
});

test('a container whose memory was used up has no other word', () => {
  const exit = { exitCode: 1, oomKilled: true, runMs: 1 };
  expect(outcomeOf({ ok: false, error: { code: 'E7' } }, exit).error).toMatchObject({ code: Code.OUT_OF_MEMORY });
});
