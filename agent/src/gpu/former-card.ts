import { NO_FIGURES, type NvidiaCard } from '../hardware/nvidia-card.ts';
import type { GpuRecord } from './gpu-records.ts';

/** A card that a former agent has seen, before the first look of this one. */
export function formerCard(uuid: string, facts: NonNullable<GpuRecord['card']>): NvidiaCard {
  return {
    uuid,
    ...facts,
    minor: undefined,
    figures: NO_FIGURES,
    divided: facts.divided ?? false,
    instances: [],
    processes: [],
    recovery: '',
  };
}
