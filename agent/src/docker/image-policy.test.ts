import { describe, expect, test } from 'vitest';
import { ImagePolicy } from './image-policy.ts';
import { type NamedImage, parseImageReference } from './image-reference.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;

function allows(pattern: string, image: string): boolean {
  return new ImagePolicy([pattern]).denied(parseImageReference(image) as NamedImage) === undefined;
}

describe('a pattern', () => {
  test.each([
    ['*', 'ghcr.io/a/b:1'],
    ['python', 'python:3.12'],
    ['python', `python@${DIGEST}`],
    ['python:3.*', 'docker.io/library/python:3.12'],
    ['docker.io/library/*', 'python'],
    ['docker.io/*', 'acme/tool'],
    ['python:3.*@*', `docker.io/library/python:3.12@${DIGEST}`],
    ['*', `ghcr.io/a/b:1@${DIGEST}`],
    ['127.0.0.1:5000/*', `127.0.0.1:5000/a:1@${DIGEST}`],
    [`python@${DIGEST}`, `python:3.12@${DIGEST}`],
    ['127.0.0.1:5000/*', '127.0.0.1:5000/a:1'],
  ])('%s allows %s', (pattern, image) => expect(allows(pattern, image)).toBe(true));

  test.each([
    ['python', 'python-evil'],
    ['python', 'evil.example/python'],
    ['python:3.*', 'python:2'],
    ['python:3.*', 'python'],
    ['acme/*', 'evil.example/acme/tool'],
    ['ghcr.io/acme/*', 'ghcr.io.evil.example/acme/tool'],
    ['ghcr.io/acme/*', 'ghcrxio/acme/tool'],
    [`python@${DIGEST}`, 'python:3.12'],
    ['python:3', `python@${DIGEST}`],
    ['python:3', `python:3@${DIGEST}`],
    ['python:3.*', `python:3.12@${DIGEST}`],
    ['python:3*', 'python:3000/evil'],
    ['acme/*', 'library/acme/tool'],
    ['ghcr.io/acme/*', 'library/ghcr.io/acme/tool'],
  ])('%s denies %s', (pattern, image) => expect(allows(pattern, image)).toBe(false));
});

test('a pattern with a tag allows a digest of which it is known that the tag has named it, and of no other tag', () => {
  const policy = new ImagePolicy(['python:3.*']);
  const denied = (image: string) => policy.tagDenied(parseImageReference(image) as NamedImage) !== undefined;
  expect(denied(`python:3.12@${DIGEST}`)).toBe(false);
  expect(denied(`python:2@${DIGEST}`)).toBe(true);
  expect(denied(`python@${DIGEST}`)).toBe(true);
});

test('a denial names the image and the rule', () => {
  const reference = parseImageReference('python') as NamedImage;
  const listed = new ImagePolicy(['ghcr.io/acme/*', 'node']).denied(reference);
  expect(listed).toBe(
    'the image docker.io/library/python:latest is not allowed on this agent: ' +
      'HARRIER_AGENT_ALLOWED_IMAGES allows ghcr.io/acme/*, node',
  );
  expect(new ImagePolicy([]).denied(reference)).toContain('HARRIER_AGENT_ALLOWED_IMAGES is empty, which allows none');
});
