import { describe, expect, test } from 'vitest';
import { isNamed, isShared, type Parts, parseGpuSelection } from './gpu-selection.ts';

/** A card that is divided into two, and one that is not; executions are given what `selection` says. */
const OWNERS: Readonly<Record<string, string>> = {
  'GPU-a': 'GPU-a',
  'MIG-a1': 'GPU-a',
  'MIG-a2': 'GPU-a',
  'GPU-b': 'GPU-b',
};
const PARTS: Parts = { cardOf: (uuid) => partOf(OWNERS[uuid]), knowsInstances: true };
const NOT_LOOKED: Parts = { cardOf: () => undefined, knowsInstances: false };
const partOf = (owner: string | undefined) => (owner === undefined ? undefined : { uuid: owner });
const shared = (selection: string, uuid: string, parts = PARTS) =>
  isShared(parseGpuSelection(selection) ?? 'none', uuid, parts);

describe('what executions can get', () => {
  test.each([
    ['all', 'GPU-b', true],
    ['none', 'GPU-b', false],
    ['GPU-a', 'GPU-a', true],
    ['GPU-a', 'GPU-b', false],
    ['GPU-a', 'MIG-a1', true],
    ['GPU-b', 'MIG-a1', false],
    ['MIG-a1', 'GPU-a', true],
    ['MIG-a1', 'GPU-b', false],
    ['MIG-a1', 'MIG-a1', true],
    ['MIG-a1', 'MIG-a2', false],
    ['GPU-b,MIG-a1', 'MIG-a2', false],
    ['MIG-gone', 'GPU-a', false],
    ['GPU-a', 'MIG-gone', false],
  ])('of %s: whether %s is shared', (selection, uuid, expected) => {
    expect(shared(selection, uuid)).toBe(expected);
  });

  test.each([
    ['GPU-a', 'MIG-a1', undefined],
    ['MIG-a1', 'GPU-a', undefined],
    ['GPU-a', 'GPU-b', false],
    ['MIG-a1', 'MIG-a2', false],
    ['GPU-a,MIG-a1', 'MIG-a1', true],
  ])(
    'of %s before the driver has told whose parts instances are: whether %s is shared',
    (selection, uuid, expected) => {
      expect(shared(selection, uuid, NOT_LOOKED)).toBe(expected);
    },
  );

  test.each([
    ['all', 'GPU-a', true],
    ['all', 'all', true],
    ['none', 'GPU-a', false],
    ['none', 'all', false],
    ['GPU-a', 'GPU-a', true],
    ['GPU-a', 'all', true],
    ['GPU-a', 'MIG-a1', false],
    ['MIG-a1', 'GPU-a', false],
  ])('of %s: whether the setting alone gives them %s', (selection, uuid, expected) => {
    expect(isNamed(parseGpuSelection(selection) ?? 'none', uuid)).toBe(expected);
    // What the setting says, no driver takes back.
    expect(shared(selection, uuid, NOT_LOOKED) === true).toBe(expected);
  });

  test('is known of an instance whose card is, whatever else the driver has not told', () => {
    const some: Parts = { ...PARTS, knowsInstances: false };
    expect([shared('GPU-b', 'MIG-a1', some), shared('GPU-b', 'MIG-c1', some)]).toEqual([false, undefined]);
  });
});
