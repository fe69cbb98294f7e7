import type { HardwareFacts } from './probe.ts';

export type Gpu = Exclude<NonNullable<HardwareFacts['gpus']>[number], { $typeName: string }>;

/** Cards that somebody else looks after. */
export interface GpuSource {
  /** Brings `list` up to date. Never rejects for what a host may lack. */
  refresh(): Promise<void>;
  list(): Gpu[];
}
