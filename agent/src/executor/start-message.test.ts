import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { AssignmentSchema } from '@harrier/shared/gen/link';
import { expect, test } from 'vitest';
import { durationMs, startMessage } from './start-message.ts';

const COMMON = {
  ref: { executionId: 'e1', attempt: 2 },
  tenant: 'acme',
  inputJson: Buffer.from('{"a":1}'),
  timeout: { seconds: 1n, nanos: 500_000 },
  limits: { memoryBytes: 1n, stdoutBytes: 2n, stderrBytes: 3n, outputBytes: 4n, tmpBytes: 5n },
  env: { A: 'b' },
} as const;

function startOf(program: MessageInitShape<typeof AssignmentSchema>['program']) {
  return startMessage(create(AssignmentSchema, { ...COMMON, ...(program && { program }) } as never), 10_000);
}

test('Python becomes code and input, with limits and context', () => {
  const value = { source: 'ä', handler: 'handler', filename: 'm.py', reuseKey: '' };
  const start = startOf({ case: 'python', value } as never);
  expect(start?.message).toEqual({
    type: 'start',
    execution: 'e1',
    attempt: 2,
    tenant: 'acme',
    kind: 'python',
    handler: 'handler',
    filename: 'm.py',
    code_bytes: 2,
    input_bytes: 7,
    env: { A: 'b' },
    timeout_ms: 1001,
    grace_ms: 2000,
    reuse_key: null,
    limits: {
      memory_bytes: 1,
      cpu: 0,
      stdout_bytes: 2,
      stderr_bytes: 3,
      result_bytes: 4,
      tmp_bytes: 5,
      processes: 512,
    },
    context: { execution_id: 'e1', attempt: 2, tenant: 'acme', deadline: 11.001 },
  });
  expect(Buffer.concat(start?.body ?? []).toString()).toBe('ä{"a":1}');
});

test('a command gets the input alone', () => {
  const start = startOf({ case: 'command', value: { argv: ['ls', '-l'] } } as never);
  expect(start?.message).toMatchObject({ kind: 'command', argv: ['ls', '-l'], input_bytes: 7 });
  expect(Buffer.concat(start?.body ?? []).toString()).toBe('{"a":1}');
});

test('a program that this agent does not know is not started', () => {
  expect(startOf(undefined)).toBeUndefined();
});

test('durations are milliseconds', () => {
  expect(durationMs(undefined)).toBe(0);
  expect(durationMs({ seconds: 86_400n, nanos: 1_000_000 } as never)).toBe(86_400_001);
});
