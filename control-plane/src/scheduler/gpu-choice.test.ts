import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { GpuDevice } from '../agent-link/gpu-inventory.ts';
import { TakenResources } from '../agent-link/reservation.ts';
import { chooseGpus, hasGpus, isSuitable } from './gpu-choice.ts';
import { ANY_GPU } from './requirement.ts';

const GIB = 1024 ** 3;
const card = (uuid: string, fields: Partial<GpuDevice> = {}): GpuDevice => ({
  uuid,
  model: 'NVIDIA H100 80GB HBM3',
  memoryBytes: 80 * GIB,
  driverVersion: '550.54.14',
  migProfile: '',
  free: true,
  quarantineReason: undefined,
  ...fields,
});
const host = (devices: GpuDevice[], taken = new TakenResources()) => ({ gpus: { devices, key: '' }, taken });
const asks = (gpus: number, gpu = {}) => ({ gpus, gpu: { ...ANY_GPU, ...gpu } });

describe('the choice of GPUs', () => {
  test.each([
    [{ model: 'h100' }, true],
    [{ model: 'a100' }, false],
    [{ minMemoryBytes: 80 * GIB }, true],
    [{ minMemoryBytes: 81 * GIB }, false],
    [{ minDriverVersion: [550] }, true],
    [{ minDriverVersion: [550, 54, 14] }, true],
    [{ minDriverVersion: [550, 54, 15] }, false],
    [{ minDriverVersion: [550, 54, 14, 1] }, false],
    [{ minDriverVersion: [549, 99] }, true],
    [{ migProfile: '1g.10gb' }, false],
  ])('asked for %j', (gpu, suits) => {
    expect(isSuitable(card('c'), asks(1, gpu))).toBe(suits);
  });

  test('an instance serves who asks for one GPU, before whole cards do, and nobody who asks for more', () => {
    const slice = card('mig', { migProfile: '1g.10gb', memoryBytes: 10 * GIB });
    expect(chooseGpus(host([card('whole'), slice]), asks(1))).toEqual(['mig']);
    expect(chooseGpus(host([card('whole'), slice]), asks(2))).toBeUndefined();
    expect(chooseGpus(host([card('whole'), slice]), asks(1, { minMemoryBytes: 20 * GIB }))).toEqual(['whole']);
  });

  test('what is given is free, suitable, given once, and there whenever it is said to be', () => {
    const devices = fc.array(
      fc.record({ free: fc.boolean(), mig: fc.boolean(), gib: fc.constantFrom(10, 40, 80), taken: fc.boolean() }),
      { maxLength: 10 },
    );
    fc.assert(
      fc.property(devices, fc.integer({ min: 0, max: 4 }), fc.constantFrom(0, 20, 80), (given, count, gib) => {
        const all = given.map((facts, at) =>
          card(String(at), { free: facts.free, memoryBytes: facts.gib * GIB, migProfile: facts.mig ? '1g' : '' }),
        );
        const taken = new TakenResources();
        const gpuUuids = given.flatMap((facts, at) => (facts.taken ? [String(at)] : []));
        taken.add('other', { slots: 1, cpuMilli: 0, memoryBytes: 0, slurmJobs: 0, gpuUuids });
        const asked = asks(count, { minMemoryBytes: gib * GIB });
        const chosen = chooseGpus(host(all, taken), asked);
        expect(hasGpus(host(all, taken), asked)).toBe(chosen !== undefined);
        if (chosen === undefined) return;
        expect(new Set(chosen).size).toBe(count);
        for (const uuid of chosen) {
          const device = all.find((one) => one.uuid === uuid);
          expect(device?.free).toBe(true);
          expect(gpuUuids).not.toContain(uuid);
          expect(device !== undefined && isSuitable(device, asked)).toBe(true);
        }
      }),
    );
  });
});
