import type { Bind } from '../launcher/messages.ts';

/** What code needs to use exactly these cards and see no others. */
export interface GpuAccess {
  /** Of cards and MIG instances. */
  uuids: readonly string[];
  /** Their device nodes, and those that every card needs. */
  devices: readonly Pick<Bind, 'source' | 'target'>[];
  /** Directories of the driver's libraries that a sandbox does not have anyway. */
  libraries: readonly Bind[];
}

/** Finds out how attempts get to their cards: a text says why they cannot; undefined: without a sandbox they see all cards. */
export type GpuAccessFinder = (uuids: readonly string[]) => GpuAccess | string | undefined;

/** Variables by which programs, and NVIDIA's container runtime, know their cards. */
export function gpuVariables(uuids: readonly string[]): Record<string, string> {
  if (uuids.length === 0) return {};
  const names = uuids.join(',');
  return { CUDA_VISIBLE_DEVICES: names, NVIDIA_VISIBLE_DEVICES: names };
}
