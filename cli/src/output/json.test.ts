import { create } from '@bufbuild/protobuf';
import { ExecutionSchema, Execution_State as State } from '@harrier/shared/gen/execution';
import { describe, expect, it } from 'vitest';
import { executionText, prettyJson } from './json.ts';

describe('executionText', () => {
  it('puts output and input in as they were written', () => {
    const outputJson = '{"big":12345678901234567890,"ratio":1.10,"dollar":"$&"}';
    const execution = create(ExecutionSchema, { id: 'x', state: State.SUCCEEDED, outputJson, inputJson: '{"n": 1e3}' });
    expect(executionText(execution)).toBe(`{"id":"x","state":"SUCCEEDED","input":{"n": 1e3},"output":${outputJson}}`);
  });

  it('leaves an output that came as a structure', () => {
    const execution = create(ExecutionSchema, { id: 'x', output: { a: 1 } });
    expect(executionText(execution)).toBe('{"id":"x","output":{"a":1}}');
  });
});

describe('prettyJson', () => {
  it('keeps every digit', () => {
    expect(prettyJson('{"a":[12345678901234567890,1.10],"b":{}}')).toBe(
      '{\n  "a": [\n    12345678901234567890,\n    1.10\n  ],\n  "b": {}\n}',
    );
  });
});
