import { fromBinary, type JsonObject, type JsonValue, toBinary } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { AgentMessageSchema } from '@harrier/shared/gen/link';
import { expect, test } from 'vitest';
import type { AttemptEnd } from '../executor/executor.ts';
import { resultMessage } from './link-messages.ts';
import { sendableDetails } from './sendable-details.ts';

function nested(levels: number, wrap: (value: JsonValue) => JsonValue): JsonObject {
  let value: JsonValue = 1;
  for (let level = 0; level < levels; level++) value = wrap(value);
  return { value };
}

function end(details: JsonObject): AttemptEnd {
  const usage = { runMs: 0, cpuMs: 0, maxRssBytes: 0, stdoutBytes: 0, stderrBytes: 0 };
  const error = { code: Code.HANDLER_ERROR, message: 'no', details };
  const cut = { stdoutTruncated: false, stderrTruncated: false };
  return { outcome: 'failed', error, exitCode: 0, output: new Uint8Array(0), ...usage, ...cut };
}

/** What the control plane reads of them. */
function received(details: JsonObject): unknown {
  const frame = toBinary(AgentMessageSchema, resultMessage({ executionId: 'e', attempt: 1 }, end(details), 0));
  const { message } = fromBinary(AgentMessageSchema, frame);
  return message.case === 'result' ? message.value.error?.details : undefined;
}

test.each([1, 10, 31])('details that are nested %i levels arrive as they are', (levels) => {
  for (const wrap of [(value: JsonValue) => [value], (value: JsonValue) => ({ value })]) {
    const details = nested(levels, wrap);
    expect(received(details)).toEqual(details);
  }
});

test.each([32, 300, 20_000, 1_000_000])('details that are nested %i levels are left out, with the reason', (levels) => {
  for (const wrap of [(value: JsonValue) => [value], (value: JsonValue) => ({ value })]) {
    const omitted = expect.stringMatching(/^\$\.value.*: nested deeper than 32 levels$/);
    expect(received(nested(levels, wrap))).toEqual({ omitted });
  }
});

test.each([
  ['one long text', { text: 'x'.repeat(70_000) }],
  ['many values', { list: Array.from({ length: 70_000 }, () => 0) }],
  ['many bytes of few characters', { text: '€'.repeat(30_000) }],
])('details of %s are left out', (_, details) => {
  expect(received(details)).toEqual({ omitted: 'the details are larger than 65536 bytes' });
});

test('numbers that JSON cannot say are left out with the rest', () => {
  expect(sendableDetails(JSON.parse('{"a": [1e400]}'))).toEqual({
    omitted: '$.a[0]: the number is beyond the range of a double',
  });
});
