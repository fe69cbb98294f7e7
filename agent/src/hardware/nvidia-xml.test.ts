import { describe, expect, test } from 'vitest';
import { testdata } from '../test-support/testdata.ts';
import { parseNvidiaXml } from './nvidia-xml.ts';

const MIB = 1024 * 1024;

describe('a card of driver', () => {
  test('390 has its memory errors in one sum, and no MIG', () => {
    const { driverVersion, cudaVersion, cards } = parseNvidiaXml(testdata('nvidia-390-p100.xml'));
    expect([driverVersion, cudaVersion, cards.length]).toEqual(['390.116', '9.1', 1]);
    expect(cards[0]).toEqual({
      uuid: 'GPU-39000000-0000-4000-8000-000000000000',
      index: 0,
      minor: 0,
      pciBusId: '00000000:04:00.0',
      model: 'Tesla P100-PCIE-16GB',
      memoryBytes: 16_280 * MIB,
      figures: {
        memoryUsedBytes: 2310 * MIB,
        utilizationRatio: 0.97,
        temperatureCelsius: 61,
        powerWatts: 26.78,
        powerLimitWatts: 70,
        uncorrectedEccErrors: 2,
      },
      divided: false,
      instances: [],
      processes: [
        {
          pid: 4711,
          name: 'python <train>',
          memoryBytes: 2300 * MIB,
          drawsOnly: false,
          gpuInstance: undefined,
          computeInstance: undefined,
        },
      ],
      recovery: '',
    });
  });

  test('515 tells a desktop from what computes', () => {
    const [card] = parseNvidiaXml(testdata('nvidia-515-t4.xml')).cards;
    expect(card?.processes.map(({ pid, drawsOnly }) => [pid, drawsOnly])).toEqual([
      [812, true],
      [2291, false],
    ]);
    expect(card?.figures.uncorrectedEccErrors).toBe(0);
  });

  test('535 may be divided into MIG instances, whose use it does not tell', () => {
    const { cards } = parseNvidiaXml(testdata('nvidia-535-a100-mig.xml'));
    expect(cards.map(({ divided, instances }) => [divided, instances.length])).toEqual([
      [true, 2],
      [false, 0],
    ]);
    expect(cards[0]?.instances[1]).toMatchObject({ index: 1, gpuInstance: 4, computeInstance: 0 });
    expect(cards[0]?.processes[0]).toMatchObject({ pid: 9001, gpuInstance: 4, computeInstance: 0 });
    expect(cards[0]?.figures).toMatchObject({ utilizationRatio: undefined, powerWatts: 67.03, powerLimitWatts: 500 });
  });

  test('570 is one of eight', () => {
    const { cards } = parseNvidiaXml(testdata('nvidia-570-h200-8.xml'));
    expect(cards.map(({ index, minor }) => [index, minor])).toEqual([0, 1, 2, 3, 4, 5, 6, 7].map((n) => [n, n]));
    expect(new Set(cards.map(({ uuid }) => uuid)).size).toBe(8);
    expect(cards[0]?.figures).toMatchObject({ utilizationRatio: 0.99, powerWatts: 612.44, uncorrectedEccErrors: 0 });
  });

  test('590 that has no error correction tells none', () => {
    const [card] = parseNvidiaXml(testdata('nvidia-590-rtx-pro.xml')).cards;
    expect(card?.figures).toMatchObject({ uncorrectedEccErrors: undefined, powerWatts: 3.99, powerLimitWatts: 300 });
  });
});

test('memory in use that a card does not tell is not known', () => {
  const text = testdata('nvidia-515-t4.xml').replace(/<used>[^<]*</, '<used>N/A<');
  expect(parseNvidiaXml(text).cards[0]?.figures.memoryUsedBytes).toBeUndefined();
});

test('a card that has left the bus is told apart', () => {
  const { cards, lost } = parseNvidiaXml(testdata('nvidia-535-lost.xml'));
  expect(cards.map(({ uuid }) => uuid)).toEqual(['GPU-53500000-0000-4000-8000-000000000000']);
  expect(lost).toEqual(['00000000:02:00.0']);
});

test.each([
  ['<gpu_recovery_action>None', '<gpu_recovery_action>Drain and Reset', 'nvidia-570-h200-8.xml', 'Drain and Reset'],
  ['<reset_required>No', '<reset_required>Yes', 'nvidia-535-lost.xml', 'Reset'],
])('what the driver wants done before a card is used again is told: %s', (before, after, file, recovery) => {
  expect(parseNvidiaXml(testdata(file).replace(before, after)).cards[0]?.recovery).toBe(recovery);
});

test('errors are summed by kind of memory', () => {
  const text = testdata('nvidia-570-h200-8.xml')
    .replace('secded>0<', 'secded>2<')
    .replace('<dram_uncorrectable>0<', '<dram_uncorrectable>5<');
  expect(parseNvidiaXml(text).cards[0]?.figures.uncorrectedEccErrors).toBe(7);
});

test('what the tool complains of before its answer is skipped', () => {
  const complaint = 'Unable to determine the device handle for GPU0000:25:00.0: Unknown Error\n';
  expect(parseNvidiaXml(complaint + testdata('nvidia-515-t4.xml')).cards).toHaveLength(1);
});

test.each([
  ['', 'it is not its XML'],
  ['No devices were found\n', 'it is not its XML'],
  ['<?xml version="1.0"?><html/>', 'its XML is not that of nvidia-smi'],
  [testdata('nvidia-515-t4.xml').slice(0, 2000), ''],
  [testdata('nvidia-515-t4.xml').replace('</uuid>', '</uuuid>'), ''],
])('what is not its answer, or only a part of it, is refused: %#', (text, reason) => {
  expect(() => parseNvidiaXml(text)).toThrow(reason);
});
