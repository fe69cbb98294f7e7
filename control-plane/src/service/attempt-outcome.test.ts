import { create, fromBinary, fromJson, type JsonObject, toBinary, toJsonString } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { CreateExecutionRequestSchema, ExecutionSchema, Execution_State as State } from '@harrier/shared/gen/execution';
import { AttemptResultSchema } from '@harrier/shared/gen/link';
import { parseTaskClasses } from '@harrier/shared/task-classes-file';
import { expect, test } from 'vitest';
import { outcomeOfResult } from './attempt-outcome.ts';
import { executionMessage, rowOfTracked } from './execution-message.ts';
import { resolveExecution } from './resolved-execution.ts';
import { TrackedExecution } from './tracked-execution.ts';

const nested = (levels: number) => `${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`;

function resolved(jsonText: boolean) {
  const request = create(CreateExecutionRequestSchema, { target: { case: 'code', value: { source: 'x' } } });
  const { classes } = parseTaskClasses('task_classes: []');
  const ids = { id: 'execution', tenantId: 'tenant' };
  return resolveExecution({ ...ids, request, module: undefined, classes, inputJson: '{}', jsonText });
}

function outcomeOf(outputJson: string) {
  const result = create(AttemptResultSchema, { state: State.SUCCEEDED, outputJson: Buffer.from(outputJson) });
  return outcomeOfResult(result, resolved(false));
}

/** As callers see an execution with an output, however that came to be stored. */
function shown(outputJson: string, jsonText = false) {
  const times = { createTime: new Date(), queueTime: new Date() };
  const ended = { assignTime: undefined, startTime: undefined, endTime: new Date() };
  const tracked = new TrackedExecution(resolved(jsonText), { ...times, ...ended }, 0);
  return executionMessage({ ...rowOfTracked(tracked), state: State.SUCCEEDED, output_json: outputJson });
}

test.each([
  ['an integer beyond a double', `{"a":{"k":[1${'0'.repeat(400)}]}}`, 'output: $.a.k[0]: the number is beyond'],
  ['a number with an exponent beyond a double', '{"k":1e400}', 'output: $.k: the number is beyond'],
  ['a lone surrogate', '{"k":"\\ud800"}', 'output: $.k: a string with a lone surrogate'],
  ['33 levels', nested(33), `output: $${'.a'.repeat(32)}: nested deeper than 32 levels`],
  ['100,000 levels', nested(100_000), 'nested deeper than 32 levels'],
])('an output with %s is not accepted', (_, output, message) => {
  expect(outcomeOf(output)).toMatchObject({
    state: State.FAILED,
    outputJson: undefined,
    error: { code: Code.OUTPUT_INVALID, message: expect.stringContaining(message) },
  });
});

test('an output of 32 levels is accepted, and told in every form', () => {
  expect(outcomeOf(nested(32))).toMatchObject({ state: State.SUCCEEDED, outputJson: nested(32) });
  const message = shown(nested(32));
  expect(JSON.stringify(message.output)).toBe(nested(32));
  expect(fromBinary(ExecutionSchema, toBinary(ExecutionSchema, message)).output).toEqual(message.output);
  expect(shown(nested(32), true)).toMatchObject({ outputJson: nested(32) });
});

test.each([
  ['a number beyond a double', '{"k":1e400}'],
  ['33 levels', nested(33)],
])('an output with %s that is stored nevertheless is told as text', (_, output) => {
  const message = shown(output);
  expect(message.output).toBeUndefined();
  expect(message.outputJson).toBe(output);
  expect(toJsonString(ExecutionSchema, message)).toContain('outputJson');
});

test('details of an error that are nested too deeply are left out, and the error is told', () => {
  const details: JsonObject = JSON.parse(nested(33));
  const result = fromJson(AttemptResultSchema, {
    state: 'FAILED',
    error: { code: 'HANDLER_ERROR', message: 'm', details },
  });
  expect(outcomeOfResult(result, resolved(false)).error).toEqual({
    code: Code.HANDLER_ERROR,
    message: 'm',
    details: JSON.stringify({ $comment: `not shown: $${'.a'.repeat(32)}: nested deeper than 32 levels` }),
  });
});
