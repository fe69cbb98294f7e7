import { expect, test } from 'vitest';
import { isSecret, withoutCredentials } from './redaction.ts';

test.each([
  ['http://host:8000/path', 'http://host:8000/path'],
  ['ftp://user:password@host', 'ftp://…@host'],
  ['http://user:pass/word@host', 'http://…@host'],
  ['http://user:p?ss#w@rd@host/', 'http://…@host/'],
  ['user:password@host', '…@host'],
  ['http://host/path?token=secret', 'http://host/path'],
  ['http://host/#secret', 'http://host/'],
  ['', ''],
])('%s is told as %s', (url, told) => {
  expect(withoutCredentials(url)).toBe(told);
});

test('keys and tokens are told from names of files', () => {
  expect(isSecret(`hk_${'a'.repeat(43)}`)).toBe(true);
  expect(isSecret(`hj_${'-_A9'.repeat(10)}abc`)).toBe(true);
  expect(isSecret('hk_file')).toBe(false);
  expect(isSecret(`/etc/hk_${'a'.repeat(43)}`)).toBe(false);
});
