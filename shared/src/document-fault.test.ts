import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { expect, test } from 'vitest';
import { documentFault, MAX_DOCUMENT_DEPTH } from './document-fault.ts';
import { GetExecutionResponseSchema } from './gen/harrier/v1/execution_pb.ts';

const objects = (levels: number): unknown => (levels === 0 ? 1 : { a: objects(levels - 1) });
const arrays = (levels: number): unknown => (levels === 0 ? 1 : [arrays(levels - 1)]);

test.each([
  ['a number beyond a double', { a: { 'b c': [1, Number.POSITIVE_INFINITY] } }, '.a["b c"][1]', /range of a double/],
  ['NaN', { a: Number.NaN }, '.a', /NaN is not/],
  ['a lone surrogate', { a: ['x', '\ud800'] }, '.a[1]', /lone surrogate/],
  ['a key with a lone surrogate', { a: { '\ud800': 1 } }, '.a["\\ud800"]', /lone surrogate/],
  ['objects', objects(MAX_DOCUMENT_DEPTH + 1), '.a'.repeat(MAX_DOCUMENT_DEPTH), /deeper than 32 levels/],
  ['arrays', { a: arrays(MAX_DOCUMENT_DEPTH) }, `.a${'[0]'.repeat(MAX_DOCUMENT_DEPTH - 1)}`, /deeper than 32 levels/],
])('%s is found where it stands', (_, value, path, problem) => {
  expect(documentFault(value)).toEqual({ path, problem: expect.stringMatching(problem) });
});

test('a path has at most 200 characters', () => {
  expect(documentFault({ ['x'.repeat(1000)]: { ['y'.repeat(1000)]: Number.NaN } })?.path).toHaveLength(200);
});

test('what has no fault passes through the deepest place that a document has', () => {
  const details = objects(MAX_DOCUMENT_DEPTH) as { a: never };
  expect(documentFault(details)).toBeUndefined();
  const answer = create(GetExecutionResponseSchema, { execution: { attempts: [{ error: { details } }] } });
  const encoded = toBinary(GetExecutionResponseSchema, answer);
  expect(fromBinary(GetExecutionResponseSchema, encoded).execution?.attempts[0]?.error?.details).toEqual(details);
});
