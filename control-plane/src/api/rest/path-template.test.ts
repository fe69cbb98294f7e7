import { describe, expect, test } from 'vitest';
import { compareSpecificity, matchPath, parsePathTemplate } from './path-template.ts';

function match(template: string, path: string): Record<string, string> | undefined {
  const values = matchPath(parsePathTemplate(template), path.slice(1).split('/'));
  return values && Object.fromEntries(values);
}

test.each([
  ['/agents', '/agents', {}],
  ['/agents/{id}', '/agents/a', { id: 'a' }],
  ['/agents/{id=*}', '/agents/a', { id: 'a' }],
  ['/agents/{id}/drain', '/agents/a/drain', { id: 'a' }],
  ['/files/{path=**}', '/files/a/b', { path: 'a/b' }],
  ['/run/{module}', '/run/a%20b%2Fc', { module: 'a b/c' }],
  ['/run/{module}', '/run/%C3%A9', { module: 'é' }],
])('%s takes %s', (template, path, values) => {
  expect(match(template, path)).toEqual(values);
});

test.each([
  ['/agents', '/agents/'],
  ['/agents', '/Agents'],
  ['/agents/{id}', '/agents'],
  ['/agents/{id}', '/agents/'],
  ['/agents/{id}', '/agents/a/b'],
  ['/agents/{id}/drain', '/agents/a/resume'],
  ['/files/{path=**}', '/files'],
  ['/run/{module}', '/run/%zz'],
])('%s does not take %s', (template, path) => {
  expect(match(template, path)).toBeUndefined();
});

test('the more specific template comes first', () => {
  const templates = ['/a/{x=**}', '/a/{x}/{y}', '/a/{x}', '/a/b/{y}', '/a/b', '/a/{x}/c'];
  const ordered = templates.toSorted((a, b) => compareSpecificity(parsePathTemplate(a), parsePathTemplate(b)));
  expect(ordered).toEqual(['/a/b', '/a/b/{y}', '/a/{x}', '/a/{x}/c', '/a/{x}/{y}', '/a/{x=**}']);
});

describe('a template that the transcoder cannot serve is an error when the server starts', () => {
  test.each(['agents', '/a/{x}:cancel', '/a/{x=b/*}', '/a/{x=**}/b', '/a/*'])('%s', (template) => {
    expect(() => parsePathTemplate(template)).toThrow(template);
  });
});
