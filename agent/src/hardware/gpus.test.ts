import { Hardware_Gpu_State as State } from '@harrier/shared/gen/agent';
import { describe, expect, test } from 'vitest';
import { standInTool } from '../test-support/stand-in-tool.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { testdata, testdataPath } from '../test-support/testdata.ts';
import { gpusProbe } from './gpus.ts';
import { parseRocm } from './rocm.ts';

const GIB = 1024n ** 3n;
const NVIDIA = { refresh: async () => {}, list: () => [{ uuid: 'GPU-a', index: 0, vendor: 'NVIDIA' }] };
const NO_CARDS = { refresh: async () => {}, list: () => [] };
const graphics = [
  { vendor: 'NVIDIA Corporation', model: 'GH100', vramMib: 0 },
  { vendor: 'Advanced Micro Devices, Inc. [AMD/ATI]', model: 'Instinct MI300X', vramMib: 196_608 },
  { vendor: 'ASPEED Technology, Inc.', model: 'ASPEED Graphics Family', vramMib: 16 },
];
const information = () => Promise.resolve({ graphics } as never);

describe('cards', () => {
  test('of a host without one are none', async () => {
    expect(await gpusProbe(tempDir(), NO_CARDS, () => Promise.resolve(undefined)).read()).toEqual({ gpus: [] });
  });

  test('of NVIDIA come first and once, those that the system lists behind them, given to nobody', async () => {
    const { gpus } = await gpusProbe(tempDir(), NVIDIA, information).read();
    expect(gpus).toMatchObject([
      { uuid: 'GPU-a', index: 0 },
      { index: 1, model: 'Instinct MI300X', memoryBytes: 192n * GIB, state: State.UNMANAGED },
      { index: 2, model: 'ASPEED Graphics Family', state: State.UNMANAGED },
    ]);
  });

  test('of AMD come with figures where its tool is there', async () => {
    const directory = tempDir();
    standInTool(directory, 'rocm-smi', `cat ${testdataPath('rocm-6-rx7900.txt')}`);
    const { gpus } = await gpusProbe(`${directory}:/usr/bin:/bin`, NO_CARDS, information).read();
    expect(gpus).toMatchObject([
      { vendor: 'AMD', model: 'Radeon RX 7900 XT', state: State.UNMANAGED },
      { model: 'ASPEED Graphics Family' },
    ]);
  });
});

test('an answer of rocm-smi 6 is read behind its warnings', () => {
  expect(parseRocm(testdata('rocm-6-rx7900.txt'))).toEqual([
    {
      index: 0,
      vendor: 'AMD',
      uuid: '0x1a2b3c4d5e6f7081',
      model: 'Radeon RX 7900 XT',
      memoryBytes: 21_458_059_264n,
      memoryUsedBytes: 27_856_896n,
      utilizationRatio: 0.07,
      temperatureCelsius: 31,
      powerWatts: 14,
      pciBusId: '0000:03:00.0',
      driverVersion: '6.12.12',
    },
  ]);
});

test('cards of rocm-smi 5 are in order, and what is not told is absent', () => {
  const cards = parseRocm(testdata('rocm-5-mi250x.txt'));
  expect(cards).toMatchObject([
    { index: 0, uuid: '0xe7a0', powerWatts: 89, temperatureCelsius: 40, driverVersion: '5.16.9.22.20' },
    { index: 1, uuid: '0xe7a1' },
  ]);
  expect(cards?.[1]).not.toHaveProperty('powerWatts');
  expect(parseRocm('{"card0": {"Card series": "some"}}')?.[0]).toEqual({
    index: 0,
    vendor: 'AMD',
    uuid: '',
    model: 'some',
    memoryBytes: 0n,
    pciBusId: '',
    driverVersion: '',
  });
});

test.each(['', 'ERROR: no GPU', '[]', '{"card0": '])('%j is no answer of rocm-smi', (text) => {
  expect(parseRocm(text) ?? []).toEqual([]);
});
