import { expect, test } from 'vitest';
import { runtimeClosure } from './dependencies.ts';

const LOCK = {
  agent: { dependencies: { shared: '1', a: '1' } },
  shared: { dependencies: { b: '2' } },
  'node_modules/shared': { link: true, resolved: 'shared' },
  'node_modules/a': { dependencies: { b: '1', '@types/node': '24' }, optionalDependencies: { native: '1' } },
  'node_modules/a/node_modules/b': { dependencies: { c: '1' } },
  'node_modules/b': { peerDependencies: { c: '1', d: '1' }, peerDependenciesMeta: { d: { optional: true } } },
  'node_modules/c': {},
  'node_modules/d': {},
  'node_modules/native': {},
  'node_modules/@types/node': {},
  'node_modules/unused': {},
};

test('a workspace needs what its dependencies need, each in the version that Node.js would find', () => {
  expect(runtimeClosure(LOCK, ['agent'])).toEqual([
    'agent',
    'node_modules/a',
    'node_modules/a/node_modules/b',
    'node_modules/b',
    'node_modules/c',
    'shared',
  ]);
});

test('a dependency that is not in the lock file is named', () => {
  expect(() => runtimeClosure({ agent: { dependencies: { gone: '1' } } }, ['agent'])).toThrow(/no gone, which agent/);
});
