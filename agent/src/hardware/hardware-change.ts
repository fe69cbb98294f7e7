import { clone, equals } from '@bufbuild/protobuf';
import { type Hardware_Gpu as Gpu, type Hardware, HardwareSchema } from '@harrier/shared/gen/agent';

/** Every write moves the free space of a disk; what placement can use is a hundredth of its size. So of a card's memory. */
const CHANGE_PARTS = 100n;
/** What a card does differs from one look to the next also when nothing happens. */
const UTILIZATION_STEP = 0.05;
const TEMPERATURE_STEP_CELSIUS = 3;
const POWER_STEP_WATTS = 20;

/** Whether the control plane should hear of the difference. */
export function isWorthTelling(told: Hardware, current: Hardware): boolean {
  const rounded = clone(HardwareSchema, current);
  for (const disk of rounded.disks) {
    const before = told.disks.find(({ mount }) => mount === disk.mount);
    if (before === undefined) return true;
    if (isNear(disk.availableBytes, before.availableBytes, disk.sizeBytes)) disk.availableBytes = before.availableBytes;
  }
  for (const gpu of rounded.gpus) {
    const before = told.gpus.find(({ uuid, index }) => uuid === gpu.uuid && index === gpu.index);
    if (before === undefined) return true;
    roundGpu(gpu, before);
  }
  return !equals(HardwareSchema, told, rounded);
}

/** Gives a card the figures that were told of it where they have hardly changed. */
function roundGpu(gpu: Gpu, told: Gpu): void {
  const [used, usedBefore] = [gpu.memoryUsedBytes, told.memoryUsedBytes];
  if (used !== undefined && usedBefore !== undefined && isNear(used, usedBefore, gpu.memoryBytes)) {
    gpu.memoryUsedBytes = usedBefore;
  }
  for (const [name, step] of [
    ['utilizationRatio', UTILIZATION_STEP],
    ['temperatureCelsius', TEMPERATURE_STEP_CELSIUS],
    ['powerWatts', POWER_STEP_WATTS],
  ] as const) {
    const value = rounded(gpu[name], told[name], step);
    if (value !== undefined) gpu[name] = value;
  }
  for (const process of gpu.processes) {
    const before = told.processes.find(({ pid }) => pid === process.pid);
    if (before !== undefined && isNear(process.memoryBytes, before.memoryBytes, gpu.memoryBytes)) {
      process.memoryBytes = before.memoryBytes;
    }
  }
}

function isNear(value: bigint, told: bigint, whole: bigint): boolean {
  const change = value - told;
  return (change < 0n ? -change : change) * CHANGE_PARTS < whole;
}

function rounded(value: number | undefined, told: number | undefined, step: number): number | undefined {
  if (value === undefined || told === undefined) return value;
  return Math.abs(value - told) < step ? told : value;
}
