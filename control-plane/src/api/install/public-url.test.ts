import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parsePublicUrl, urlFromHost } from './public-url.ts';

test.each([
  ['harrier.example', 'http://harrier.example'],
  ['harrier.example:8000', 'http://harrier.example:8000'],
  ['10.0.0.1:8000', 'http://10.0.0.1:8000'],
  ['[::1]:8000', 'http://[::1]:8000'],
  ['a', 'http://a'],
])('a request to %s comes to %s', (host, url) => {
  expect(urlFromHost(host, false)).toBe(url);
  expect(urlFromHost(host, true)).toBe(url.replace('http:', 'https:'));
});

test.each([
  undefined,
  '',
  "x';reboot;'",
  'x$(reboot)',
  'x`reboot`',
  'x\nreboot',
  'user@host',
  'host/path',
  'host name',
  'host:99999',
  'host:',
  '-host',
  '[::1',
  'é.example',
])('%j is no host', (host) => {
  expect(urlFromHost(host, false)).toBeUndefined();
});

test('whatever is taken means nothing to a shell', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.domain(), fc.ipV6(), fc.stringMatching(/^[a-z.:[\]'$`;]{1,20}$/)), (host) => {
      const url = urlFromHost(host, false);
      if (url !== undefined) expect(url).toMatch(/^http:\/\/[A-Za-z0-9.:[\]-]+$/);
    }),
  );
});

test.each([
  ['https://harrier.example', 'https://harrier.example'],
  ['https://harrier.example:8443/runs/', 'https://harrier.example:8443/runs'],
  ['http://10.0.0.1:8000/', 'http://10.0.0.1:8000'],
])('an operator may say %s', (text, url) => {
  expect(parsePublicUrl(text)).toBe(url);
});

test.each(['harrier.example', 'ftp://x', 'https://u:p@x', 'https://x/?q', "https://x/'", 'https://x/#y', ''])(
  'an operator may not say %j',
  (text) => {
    expect(parsePublicUrl(text)).toBeUndefined();
  },
);
