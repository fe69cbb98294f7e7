import { expect, it } from 'vitest';
import { readEnvironment } from './config.ts';

it.each([
  [undefined, 'http://127.0.0.1:8000'],
  ['', 'http://127.0.0.1:8000'],
  ['http://a:1', 'http://a:1'],
  ['http://a:1, https://b:2', 'http://a:1'],
])('HARRIER_SERVER_URL %j leads to %s', (HARRIER_SERVER_URL, url) => {
  expect(readEnvironment({ HARRIER_SERVER_URL }).serverUrl).toBe(url);
});
