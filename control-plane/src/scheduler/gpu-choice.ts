import type { Candidate } from '../agent-link/candidate.ts';
import type { GpuDevice } from '../agent-link/gpu-inventory.ts';
import type { Demand, GpuDemand } from './requirement.ts';

type GpuHost = Pick<Candidate, 'gpus' | 'taken'>;
type GpuAsked = Pick<Demand, 'gpus' | 'gpu'>;

/** Whether a card is what is asked for, in whatever state it is. */
export function isSuitable(device: GpuDevice, { gpus, gpu }: GpuAsked): boolean {
  if (gpu.migProfile !== '') {
    if (device.migProfile !== gpu.migProfile) return false;
    // A process can use one instance only ("MIG User Guide", CUDA visible devices): several would be of no use to it.
  } else if (gpus > 1 && device.migProfile !== '') return false;
  return (
    device.memoryBytes >= gpu.minMemoryBytes &&
    (gpu.model === '' || device.model.toLowerCase().includes(gpu.model)) &&
    isDriverAtLeast(device.driverVersion, gpu)
  );
}

/** Whether it can be given now. */
export function isAvailable(device: GpuDevice, { taken }: GpuHost): boolean {
  return device.free && taken?.gpus.has(device.uuid) !== true;
}

/** Cards that can be given now, of whatever kind. */
export function availableGpus(host: GpuHost): number {
  let count = 0;
  for (const device of host.gpus?.devices ?? []) if (isAvailable(device, host)) count++;
  return count;
}

/** Whether enough suitable cards can be given now. */
export function hasGpus(host: GpuHost, asked: GpuAsked): boolean {
  let missing = asked.gpus;
  if (missing === 0) return true;
  for (const device of host.gpus?.devices ?? []) {
    if (isAvailable(device, host) && isSuitable(device, asked) && --missing === 0) return true;
  }
  return false;
}

/**
 * The cards to give: instances before whole cards and small ones before large ones, so that what asks for much finds it.
 * @returns their UUIDs; undefined when there are too few
 */
export function chooseGpus(host: GpuHost, asked: GpuAsked): string[] | undefined {
  if (asked.gpus === 0) return [];
  const fit = (host.gpus?.devices ?? []).filter((device) => isAvailable(device, host) && isSuitable(device, asked));
  if (fit.length < asked.gpus) return undefined;
  const rank = ({ migProfile }: GpuDevice) => (migProfile === '' ? 1 : 0);
  return fit
    .toSorted((a, b) => rank(a) - rank(b) || a.memoryBytes - b.memoryBytes)
    .slice(0, asked.gpus)
    .map(({ uuid }) => uuid);
}

/** Versions as drivers have them: numbers between points, the missing ones 0. */
function isDriverAtLeast(version: string, { minDriverVersion }: GpuDemand): boolean {
  if (minDriverVersion.length === 0) return true;
  const parts = version.split('.').map(Number);
  for (const [at, wanted] of minDriverVersion.entries()) {
    const part = parts[at] ?? 0;
    // NaN: a version that is none is not new enough.
    if (part !== wanted) return part > wanted;
  }
  return true;
}
