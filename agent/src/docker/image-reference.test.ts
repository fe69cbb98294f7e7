import { expect, test } from 'vitest';
import { engineName, formatImage, parseImageReference } from './image-reference.ts';

const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`;

test.each([
  ['python', 'docker.io/library/python:latest', 'python:latest'],
  ['python:3.12', 'docker.io/library/python:3.12', 'python:3.12'],
  ['acme/tool', 'docker.io/acme/tool:latest', 'acme/tool:latest'],
  ['index.docker.io/library/python', 'docker.io/library/python:latest', 'python:latest'],
  ['localhost/tool', 'localhost/tool:latest', 'localhost/tool:latest'],
  ['127.0.0.1:5000/a/b__c:1', '127.0.0.1:5000/a/b__c:1', '127.0.0.1:5000/a/b__c:1'],
  ['[::1]:5000/a', '[::1]:5000/a:latest', '[::1]:5000/a:latest'],
  [`python@${DIGEST}`, `docker.io/library/python@${DIGEST}`, `python@${DIGEST}`],
  [`ghcr.io/a/b:1@${DIGEST}`, `ghcr.io/a/b:1@${DIGEST}`, `ghcr.io/a/b@${DIGEST}`],
  ['library/acme/tool', 'docker.io/library/acme/tool:latest', 'library/acme/tool:latest'],
  ['library/evil.example/tool', 'docker.io/library/evil.example/tool:latest', 'library/evil.example/tool:latest'],
  ['library/library/tool', 'docker.io/library/library/tool:latest', 'library/library/tool:latest'],
  [DIGEST, DIGEST, DIGEST],
  [DIGEST.slice(7), DIGEST, DIGEST],
])('%s is %s', (text, full, engine) => {
  const reference = parseImageReference(text);
  expect(formatImage(reference)).toBe(full);
  expect(engineName(reference)).toBe(engine);
  expect(parseImageReference(full)).toEqual(reference);
  // The engine, too, reads an image of that registry: another one must not get its credentials.
  const same = 'id' in reference ? reference : { registry: reference.registry, repository: reference.repository };
  expect(parseImageReference(engine)).toMatchObject(same);
});

test.each([
  '',
  'Python',
  'a b',
  '-x',
  'a:',
  'a:b:c',
  'a@sha256:12',
  'a//b',
  'a/../b',
  '/a',
  'a/',
  'reg_x.io:5000/a',
  'a@md5:1',
  'docker.io/evil.example/x',
  'index.docker.io/127.0.0.1/x',
  'docker.io/localhost/x',
])('"%s" names no image', (text) => {
  expect(() => parseImageReference(text)).toThrow(`"${text}" names no image`);
});
