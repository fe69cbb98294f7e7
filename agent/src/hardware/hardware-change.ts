import { clone, equals } from '@bufbuild/protobuf';
import { type Hardware, HardwareSchema } from '@harrier/shared/gen/agent';

/** Every write moves the free space of a disk; what placement can use is a hundredth of its size. */
const DISK_CHANGE_PARTS = 100n;

/** Whether the control plane should hear of the difference. */
export function isWorthTelling(told: Hardware, current: Hardware): boolean {
  const rounded = clone(HardwareSchema, current);
  for (const disk of rounded.disks) {
    const before = told.disks.find(({ mount }) => mount === disk.mount);
    if (before === undefined) return true;
    const change = disk.availableBytes - before.availableBytes;
    if ((change < 0n ? -change : change) * DISK_CHANGE_PARTS < disk.sizeBytes)
      disk.availableBytes = before.availableBytes;
  }
  return !equals(HardwareSchema, told, rounded);
}
