import type { NvidiaCard } from '../hardware/nvidia-card.ts';
import type { GpuRecord } from './gpu-records.ts';

/** A card that a former agent has seen, before the first look of this one. */
export function formerCard(uuid: string, facts: NonNullable<GpuRecord['card']>): NvidiaCard {
  return {
    uuid,
    ...facts,
    minor: undefined,
    figures: {
      memoryUsedBytes: 0,
      utilizationRatio: undefined,
      temperatureCelsius: undefined,
      powerWatts: undefined,
      powerLimitWatts: undefined,
      uncorrectedEccErrors: undefined,
    },
    divided: facts.divided ?? false,
    instances: [],
    processes: [],
    recovery: '',
  };
}
