import { fromJson } from '@bufbuild/protobuf';
import {
  ExecuteRequestSchema,
  ListExecutionsRequestSchema,
  ReadLogsRequestSchema,
} from '@harrier/shared/gen/execution';
import { CreateModuleRequestSchema } from '@harrier/shared/gen/module';
import { describe, expect, test } from 'vitest';
import { queryToJson } from './query-params.ts';

const NOTHING: ReadonlySet<string> = new Set();

test('fields are found in both spellings and decoded by their type', () => {
  const query = 'page_size=3&pageToken=a%20b&state=RUNNING&create_time_from=2026-01-02T03:04:05Z';
  const request = fromJson(ListExecutionsRequestSchema, queryToJson(ListExecutionsRequestSchema, query, NOTHING));
  expect(request).toMatchObject({ pageSize: 3, pageToken: 'a b', state: 4, createTimeFrom: { seconds: 1767323045n } });
});

test('an enum can be given by its number, an int64 and a boolean as text', () => {
  const query = 'stream=1&stdout_offset=9007199254740993&follow=true';
  const request = fromJson(ReadLogsRequestSchema, queryToJson(ReadLogsRequestSchema, query, NOTHING));
  expect(request).toMatchObject({ stream: 1, stdoutOffset: 9007199254740993n, follow: true });
});

test('nested fields, lists, maps and durations', () => {
  const query =
    'timeout=1.5s&retry_policy.maxAttempts=2&retryPolicy.codes=TIMEOUT&retryPolicy.codes=KILLED&labels[a]=b&labels[__proto__]=c';
  expect(queryToJson(ExecuteRequestSchema, query, NOTHING)).toEqual({
    timeout: '1.5s',
    retryPolicy: { maxAttempts: '2', codes: ['TIMEOUT', 'KILLED'] },
    labels: Object.fromEntries([
      ['a', 'b'],
      ['__proto__', 'c'],
    ]),
  });
});

describe('refused, with the name of the parameter', () => {
  test.each([
    ['page_sise=3', 'page_sise: unknown query parameter'],
    ['__proto__=3', '__proto__: unknown query parameter'],
    ['state.x=3', 'state.x: unknown query parameter'],
    ['create_time_from.seconds=3', 'create_time_from.seconds: unknown query parameter'],
    ['page_size=1&pageSize=2', 'pageSize: given more than once'],
    ['module=a', 'module: given by the path or the body, not by the query'],
  ])('%s', (query, message) => {
    expect(() => queryToJson(ListExecutionsRequestSchema, query, new Set(['module']))).toThrow(message);
  });

  test.each([
    ['labels=a', 'labels: cannot be given in the query'],
    ['input=a', 'input: cannot be given in the query'],
    ['version[a]=b', 'version[a]: cannot be given in the query'],
    ['retry_policy=a', 'retry_policy: cannot be given in the query'],
  ])('%s', (query, message) => {
    expect(() => queryToJson(ExecuteRequestSchema, query, NOTHING)).toThrow(message);
  });

  test('a boolean that is none', () => {
    expect(() => queryToJson(ReadLogsRequestSchema, 'follow=yes', NOTHING)).toThrow(
      'follow: expected true or false, got "yes"',
    );
    expect(() => queryToJson(CreateModuleRequestSchema, 'module.reuse=', NOTHING)).toThrow(
      'module.reuse: expected true or false',
    );
  });
});
