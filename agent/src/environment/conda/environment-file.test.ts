import { ENVIRONMENT_BOUNDS } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { expect, test } from 'vitest';
import { parseEnvironmentFile } from './environment-file.ts';

test('a file gives channels, dependencies and what pip installs', () => {
  const file = 'name: x\nchannels: [conda-forge]\ndependencies:\n  - python=3.12\n  - pip: [six, idna]\n';
  expect(parseEnvironmentFile(file)).toEqual({
    channels: ['conda-forge'],
    dependencies: ['python=3.12'],
    pip: ['six', 'idna'],
  });
});

test.each([
  [
    'a key that is there twice',
    'dependencies: [a]\nname: x\ndependencies: [b]\n',
    /line 3: "dependencies" is there twice/,
  ],
  ['what is no YAML', 'dependencies: [a\n', /line 2: /],
  ['an alias that is none', 'dependencies: [*a]\n', /line 1: /],
  ['more than anybody writes', `dependencies: [a]\n${'#'.repeat(ENVIRONMENT_BOUNDS.condaFileChars)}`, /characters/],
  ['a dependency that is none', `dependencies: [${'a'.repeat(5_000)}]`, /dependencies\[0\]: 5000 characters/],
  ['what is nested too deep', `dependencies: ${'['.repeat(30_000)}`, /line 1/],
  ['nothing but tags', `dependencies: ${'! '.repeat(15_000)}`, /line 1: .*tag/],
])('%s is refused', (_, file, message) => {
  expect(() => parseEnvironmentFile(file)).toThrow(
    expect.objectContaining({ code: Code.ENVIRONMENT_FAILED, message: expect.stringMatching(message) }),
  );
});
