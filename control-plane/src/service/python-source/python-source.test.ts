import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { PythonSource } from './python-source.ts';

const python = new PythonSource();
afterAll(() => python.stop());

const problemOf = (source: string, handler = 'handler') =>
  python.check(source, handler, 'module.code').then(
    () => undefined,
    (error: Error) => error.message,
  );

describe('a handler is found', () => {
  test.each([
    ['as a function', 'def handler(input):\n    return {}\n'],
    ['as an async function', 'async def handler(input): ...'],
    ['decorated', '@cache\n@other(1)\ndef handler(input): ...'],
    ['as a class', 'class handler:\n    def __call__(self, input): ...'],
    ['as a lambda', 'handler = lambda input: input'],
    ['among other targets', 'a, (handler, *rest) = make()'],
    ['in a chain of assignments', 'a = handler = make()'],
    ['with an annotation', 'handler: Handler = make()'],
    ['by import', 'from work import run as handler'],
    ['by plain import', 'import handler'],
    ['in a block', 'try:\n    import x\nexcept ImportError:\n    def handler(input): ...\nelse:\n    pass'],
    ['in a branch', 'if True:\n    pass\nelse:\n    def handler(input): ...'],
    ['behind a walrus', '(handler := make())'],
    ['by a global statement', 'def set_up():\n    global handler\n    handler = 1\nset_up()'],
    ['perhaps, behind a star', 'from work import *'],
    ['perhaps, by exec', 'exec(text)'],
    [
      'beside new syntax',
      'type A = int\ndef handler[T](input: T) -> dict: return {f"{"a" if 1 else f"{2}"}": 1}\nmatch 1:\n    case {"a": x} if x: pass\n',
    ],
  ])('%s', async (_, source) => {
    expect(await problemOf(source)).toBeUndefined();
  });
});

test.each([
  ['def Handler(input): ...\nx = 1', 'module.code has no function "handler"; it defines Handler, x'],
  ['class A:\n    def handler(self): ...', 'module.code has no function "handler"; it defines A'],
  ['# nothing', 'module.code has no function "handler"; it defines nothing'],
  ['import os.path as p, sys', 'module.code has no function "handler"; it defines p, sys'],
  ['def handler(input):\n    return {', 'module.code is not Python near line 2'],
  ['x = 1\ndef handler(input)\n    return {}', 'module.code is not Python near line 3'],
  ['function handler(input) { return {} }', 'module.code is not Python near line 1'],
])('%j is refused', async (source, problem) => {
  expect(await problemOf(source)).toContain(problem);
});

test('the standard library is Python', async () => {
  const directory = '/usr/lib/python3.11';
  const files = readdirSync(directory).filter((name) => name.endsWith('.py'));
  expect(files.length).toBeGreaterThan(100);
  for (const name of files) {
    const problem = await problemOf(readFileSync(join(directory, name), 'utf8'));
    expect(problem === undefined || problem.includes('has no function'), `${name}: ${problem}`).toBe(true);
  }
});

test('a source that takes too long to parse fails alone, and nothing is parsed after the end', async () => {
  const impatient = new PythonSource(2_000);
  const slow = 'a = [1, (2, 3), {"b": [4, f(5)]}]\n'.repeat(600_000);
  const [first, second] = await Promise.allSettled([
    impatient.check(slow, 'a', 'module.code'),
    impatient.check('def handler(input): ...', 'handler', 'module.code'),
  ]);
  expect(first).toMatchObject({ status: 'rejected', reason: { message: 'the source took longer than 2 s to parse' } });
  expect(second).toEqual({ status: 'fulfilled', value: undefined });
  const asked = impatient.check(slow, 'a', 'module.code');
  const waits = impatient.check('', 'handler', 'module.code');
  const ended = Promise.allSettled([asked, waits]);
  await impatient.stop();
  expect(await ended).toMatchObject(Array(2).fill({ reason: { message: 'the control plane stops' } }));
});
