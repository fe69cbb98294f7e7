import { type Hardware_Gpu as Gpu, Hardware_Gpu_State as GpuState, type Hardware } from '@harrier/shared/gen/agent';

/** A card, or a MIG instance, that an agent gives to executions. */
export interface GpuDevice {
  uuid: string;
  /** As the driver names the card. */
  model: string;
  memoryBytes: number;
  driverVersion: string;
  /** Of a MIG instance; empty for a whole card. */
  migProfile: string;
  /** The agent says that nobody has it and that nothing is wrong with it. */
  free: boolean;
  /** The agent gives it to nobody: why. */
  quarantineReason: string | undefined;
}

export interface GpuInventory {
  devices: readonly GpuDevice[];
  /** The same for agents whose cards are alike, whatever their state. */
  key: string;
}

/** What an agent gives of its cards; undefined when it gives none. */
export function gpuInventory(hardware: Pick<Hardware, 'gpus'> | undefined): GpuInventory | undefined {
  const devices = (hardware?.gpus ?? []).flatMap(devicesOf);
  if (devices.length === 0) return undefined;
  const kinds = devices.map(({ model, memoryBytes, driverVersion, migProfile }) =>
    [model, memoryBytes, driverVersion, migProfile].join('|'),
  );
  return { devices, key: kinds.toSorted().join() };
}

function devicesOf(gpu: Gpu): GpuDevice[] {
  const { model, driverVersion } = gpu;
  if (gpu.state === GpuState.DIVIDED) {
    return gpu.migInstances.map(({ uuid, profile, memoryBytes, state, stateReason }) => ({
      uuid,
      model,
      memoryBytes: Number(memoryBytes),
      driverVersion,
      migProfile: profile,
      ...stateOf(state, stateReason),
    }));
  }
  // What an agent does not say anything of, it does not give.
  if (gpu.state === GpuState.STATE_UNSPECIFIED || gpu.state === GpuState.UNMANAGED) return [];
  const facts = { uuid: gpu.uuid, model, memoryBytes: Number(gpu.memoryBytes), driverVersion, migProfile: '' };
  return [{ ...facts, ...stateOf(gpu.state, gpu.stateReason) }];
}

function stateOf(state: GpuState, reason: string): Pick<GpuDevice, 'free' | 'quarantineReason'> {
  return {
    free: state === GpuState.FREE,
    quarantineReason: state === GpuState.QUARANTINED ? reason || 'no reason given' : undefined,
  };
}
