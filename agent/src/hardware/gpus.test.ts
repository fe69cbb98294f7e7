import { describe, expect, test } from 'vitest';
import { standInTool } from '../test-support/stand-in-tool.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { gpusProbe, parseNvidiaSmi } from './gpus.ts';

// Made up in the documented form of `nvidia-smi --query-gpu=… --format=csv,noheader,nounits`; not recorded on a card.
const TWO_CARDS = [
  '0, GPU-11111111-2222-3333-4444-555555555555, NVIDIA H200, 143771, 1024, 37, 570.86.15',
  '1, GPU-66666666-7777-8888-9999-000000000000, NVIDIA H200, 143771, 0, 0, 570.86.15',
].join('\n');
const GIB = 1024n ** 3n;

const none = () => Promise.resolve(undefined);

describe('GPUs', () => {
  test('are those that nvidia-smi tells, with figures', async () => {
    const directory = tempDir();
    standInTool(
      directory,
      'nvidia-smi',
      `case "$*" in *--format=csv,noheader,nounits*) cat <<'END'\n${TWO_CARDS}\nEND\nesac`,
    );
    const { gpus } = await gpusProbe(`${directory}:/usr/bin:/bin`, none).read();
    expect(gpus).toHaveLength(2);
    expect(gpus?.[0]).toEqual({
      uuid: 'GPU-11111111-2222-3333-4444-555555555555',
      index: 0,
      model: 'NVIDIA H200',
      vendor: 'NVIDIA',
      memoryBytes: 143_771n * 1024n * 1024n,
      memoryUsedBytes: GIB,
      utilizationRatio: 0.37,
      driverVersion: '570.86.15',
    });
  });

  test('of a host without one are none', async () => {
    expect(await gpusProbe(tempDir(), none).read()).toEqual({ gpus: [] });
  });

  test('of other makers come without figures, NVIDIA cards are not listed twice', async () => {
    const graphics = [
      { vendor: 'NVIDIA Corporation', model: 'GH100', vramMib: 0 },
      { vendor: 'Advanced Micro Devices, Inc. [AMD/ATI]', model: 'Instinct MI300X', vramMib: 196_608 },
    ];
    const information = { graphics } as never;
    const { gpus } = await gpusProbe(tempDir(), () => Promise.resolve(information)).read();
    expect(gpus).toEqual([
      { index: 0, vendor: graphics[1]?.vendor, model: 'Instinct MI300X', memoryBytes: 192n * GIB },
    ]);
  });

  test('behind a driver that hangs are none, and it is not asked again at once', async () => {
    const directory = tempDir();
    standInTool(directory, 'nvidia-smi', 'exec sleep 1000');
    const probe = gpusProbe(`${directory}:/usr/bin:/bin`, none, 50);
    expect(await probe.read()).toEqual({ gpus: [] });
    standInTool(directory, 'nvidia-smi', 'exit 1');
    expect(await probe.read()).toEqual({});
  });

  test('that do not support a figure have 0 for it', () => {
    const [gpu] = parseNvidiaSmi('0, GPU-a, GRID K1, [N/A], [Not Supported], [N/A], 1.0\n');
    expect(gpu).toMatchObject({ memoryBytes: 0n, memoryUsedBytes: 0n, utilizationRatio: 0 });
  });

  test.each(['', 'No devices were found', 'Failed to initialize NVML: Driver/library version mismatch'])(
    'are none when the tool says %j',
    (text) => expect(parseNvidiaSmi(text)).toEqual([]),
  );
});
