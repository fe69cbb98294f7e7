import type { MessageInitShape } from '@bufbuild/protobuf';
import {
  type Hardware_Gpu_MigInstanceSchema,
  type Hardware_GpuSchema,
  Hardware_Gpu_State as State,
} from '@harrier/shared/gen/agent';
import type { NvidiaCard } from '../hardware/nvidia-card.ts';
import { GPUS_SETTING } from './gpu-selection.ts';
import type { GpuTable } from './gpu-table.ts';

export type GpuFacts = Exclude<MessageInitShape<typeof Hardware_GpuSchema>, { $typeName: string }>;
type InstanceFacts = MessageInitShape<typeof Hardware_Gpu_MigInstanceSchema>;

/** What is known of a card beside its own words. */
export interface GpuContext {
  table: GpuTable;
  driverVersion: string;
  cudaVersion: string;
  lastXid: number;
}

/** A card as the control plane is told of it. */
export function gpuFacts(card: NvidiaCard, context: GpuContext): GpuFacts {
  const { figures } = card;
  return {
    uuid: card.uuid,
    index: card.index,
    model: card.model,
    vendor: 'NVIDIA',
    memoryBytes: BigInt(card.memoryBytes),
    ...whole('memoryUsedBytes', figures.memoryUsedBytes),
    ...present('utilizationRatio', figures.utilizationRatio),
    driverVersion: context.driverVersion,
    cudaVersion: context.cudaVersion,
    ...present('temperatureCelsius', figures.temperatureCelsius),
    ...present('powerWatts', figures.powerWatts),
    ...present('powerLimitWatts', figures.powerLimitWatts),
    ...whole('uncorrectedEccErrors', figures.uncorrectedEccErrors),
    lastXid: context.lastXid,
    pciBusId: card.pciBusId,
    migInstances: card.divided ? instancesOf(card, context.table) : [],
    processes: card.processes.map(({ pid, name, memoryBytes }) => ({ pid, name, memoryBytes: BigInt(memoryBytes) })),
    ...stateOf(card.uuid, context.table),
  };
}

function instancesOf({ instances }: NvidiaCard, table: GpuTable): InstanceFacts[] {
  return instances
    .filter(({ uuid }) => uuid !== '')
    .map(({ uuid, profile, memoryBytes }) => ({
      uuid,
      profile,
      memoryBytes: BigInt(memoryBytes),
      ...stateOf(uuid, table),
    }));
}

function stateOf(uuid: string, table: GpuTable): { state: State; stateReason: string; executionId: string } {
  const executionId = table.holderOf(uuid)?.executionId ?? '';
  const notGiven = table.notGivenOf(uuid);
  if (notGiven === 'unmanaged')
    return { state: State.UNMANAGED, stateReason: `left out by ${GPUS_SETTING}`, executionId };
  const quarantine = table.quarantineOf(uuid);
  if (quarantine !== undefined) return { state: State.QUARANTINED, stateReason: quarantine, executionId };
  if (notGiven === 'divided') return { state: State.DIVIDED, stateReason: '', executionId };
  return { state: table.stateOf(uuid) === 'free' ? State.FREE : State.RESERVED, stateReason: '', executionId };
}

function present<Name extends string>(name: Name, value: number | undefined): { [name in Name]?: number } {
  return value === undefined ? {} : ({ [name]: value } as { [name in Name]?: number });
}

function whole<Name extends string>(name: Name, value: number | undefined): { [name in Name]?: bigint } {
  return value === undefined ? {} : ({ [name]: BigInt(value) } as { [name in Name]?: bigint });
}
