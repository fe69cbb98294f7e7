import { expect, test } from 'vitest';
import { formatLock, parseLock, pythonVersionOf } from './conda-lock.ts';

const MD5 = 'a'.repeat(32);
const CHANNEL = 'https://conda.anaconda.org/conda-forge';

test('a lock is what was read of it, written anew', () => {
  const text = `# comment\n@EXPLICIT\n${CHANNEL}/linux-64/python-3.12.4-h1_0.conda#${MD5}\r\n\nHTTPS://CONDA.anaconda.org/conda-forge/noarch/six-1.17.0-py_0.conda\n# pip:\n# tomli==2.2.1\n`;
  const lock = parseLock(text);
  expect(lock).toEqual({
    packages: [
      { url: `${CHANNEL}/linux-64/python-3.12.4-h1_0.conda`, digest: MD5 },
      { url: `${CHANNEL}/noarch/six-1.17.0-py_0.conda`, digest: '' },
    ],
    pip: 'tomli==2.2.1\n',
  });
  expect(parseLock(formatLock(lock))).toEqual(lock);
  expect(pythonVersionOf(lock.packages)).toBe('3.12');
});

test('dot segments are gone before anybody compares', () => {
  const [only] = parseLock(`${CHANNEL}/%2e%2e/evil/noarch/x-1-0.conda`).packages;
  expect(only?.url).toBe('https://conda.anaconda.org/evil/noarch/x-1-0.conda');
});

test.each([
  `${CHANNEL}/noarch/x-1-0.conda extra`,
  `${CHANNEL}/noarch/x-1-0.conda#zz`,
  `${CHANNEL}/a%2f..%2fevil/x-1-0.conda`,
  'conda-forge::python',
  '@LATEST',
  'x',
  '',
])('%j is refused', (line) => {
  expect(() => parseLock(line)).toThrow(/the lock/);
});

test('a line that only a comment hides stays a comment', () => {
  expect(
    parseLock(`# c\fhttps://conda.anaconda.org/evil/noarch/x-1-0.conda\n${CHANNEL}/noarch/y-1-0.conda`).packages,
  ).toEqual([{ url: `${CHANNEL}/noarch/y-1-0.conda`, digest: '' }]);
});
