import { expect, test } from 'vitest';
import { testdata } from '../test-support/testdata.ts';
import { fatalXid, parseXid, pciKey } from './xid.ts';

const EVENTS = testdata('kmsg-xid.txt')
  .split('\n')
  .map(parseXid)
  .filter((event) => event !== undefined);

test('the errors of cards are found among the records of the kernel', () => {
  expect(EVENTS.map(({ code, atUs }) => [code, atUs])).toEqual([
    [63, 98_006_931],
    [13, 120_000_000],
    [79, 130_000_000],
    [154, 140_000_000],
    [154, 141_000_000],
  ]);
  expect(EVENTS[2]?.pci).toBe(pciKey('00000000:43:00.0'));
});

test('those that need more than another start of the program are fatal', () => {
  expect(EVENTS.map(fatalXid)).toEqual([
    undefined,
    undefined,
    expect.stringContaining('Xid 79: the GPU has fallen off the bus'),
    expect.stringContaining('Xid 154: GPU recovery action changed'),
    undefined,
  ]);
});
