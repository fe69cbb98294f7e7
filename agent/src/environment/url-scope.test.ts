import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { isWithin, openUrl, plainUrl, shownUrl } from './url-scope.ts';

const ALL = ['http:', 'https:', 'file:'];

describe('plainUrl', () => {
  test.each([
    ['https://Index.Example/simple/', 'https://index.example/simple'],
    ['HTTPS://index.example:443/a/./b', 'https://index.example/a/b'],
    ['https://index.example/a/../b', 'https://index.example/b'],
    ['https://index.example/a/%2E%2e/b', 'https://index.example/b'],
    ['file:///opt/channel/../../etc', 'file:///etc'],
    ['file:///opt/channel/%2e%2e/x', 'file:///opt/x'],
  ])('%s is %s', (text, plain) => {
    expect(plainUrl(text, ALL)).toBe(plain);
  });

  test.each([
    'https://index.example/a%2fb',
    'https://index.example/a%5Cb',
    'https://index.example/a%252e%252e/b',
    'https://index.example/a\\..\\b',
    'https://index.example/a\nb',
    'https://index.example/a b',
    'https://index.example/a\u2028b',
    'https://index.example/?x=1',
    'https://index.example/#x',
    'https://index.example/?',
    'ftp://index.example/',
    'file://host/etc',
    'index.example/simple',
    `https://index.example/${'/'.repeat(500_000)}a`,
    '',
  ])('%j is none', (text) => {
    expect(plainUrl(text, ALL)).toBeUndefined();
  });

  test('does not change what is plain, and never leaves what it is within', () => {
    const scope = 'https://index.example/good';
    fc.assert(
      fc.property(fc.array(fc.constantFrom('..', '%2e%2e', '.', 'a', 'evil', '', '%2E.', '..;')), (segments) => {
        const plain = plainUrl(`${scope}/${segments.join('/')}`);
        if (plain === undefined) return;
        expect(plainUrl(plain)).toBe(plain);
        if (isWithin(plain, scope)) expect(new URL(plain).pathname).toMatch(/^\/good(\/|$)/);
      }),
    );
  });
});

test('what is below a URL is within it, and what only begins like it is not', () => {
  expect(isWithin('https://a/b', 'https://a/b')).toBe(true);
  expect(isWithin('https://a/b/c', 'https://a/b')).toBe(true);
  expect(isWithin('https://a/bc', 'https://a/b')).toBe(false);
  expect(isWithin('https://a.evil/b', 'https://a')).toBe(false);
});

test('the open form of a URL is plain, leads to the same, and holds no secret', () => {
  expect(openUrl('https://user:p%40ss@host:8443/t/TOKEN/channel')).toBe('https://host:8443/channel');
  expect(openUrl('https://host/t/TOKEN')).toBe('https://host');
  expect(openUrl('https://host/at/b/t/c')).toBe('https://host/at/b/t/c');
  expect(openUrl('file:///opt/t/x')).toBe('file:///opt/t/x');
});

test('nothing secret of a URL is shown', () => {
  expect(shownUrl('https://user:p@ss@host/t/TOKEN/channel')).toBe('https://…@host/t/…/channel');
});
