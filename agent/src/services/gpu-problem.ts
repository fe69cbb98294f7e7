/** Why a service is not started with the GPUs that it wants. */
export interface GpuProblem {
  /** `unknown`: the driver has not told yet; this is over when it has. */
  kind: 'shared' | 'unknown';
  reason: string;
}

/** @param isShared whether executions get a GPU, a part of it, or what it is a part of; undefined: not known yet */
export function gpuProblem(
  uuids: readonly string[],
  isShared: (uuid: string) => boolean | undefined,
): GpuProblem | undefined {
  const shared = uuids.find((uuid) => isShared(uuid));
  if (shared !== undefined) return { kind: 'shared', reason: sharedGpu(shared) };
  const unknown = uuids.find((uuid) => isShared(uuid) === undefined);
  if (unknown === undefined) return undefined;
  const why = `${unknown} may be given to executions: nvidia-smi has not said yet whose parts the MIG instances are`;
  return { kind: 'unknown', reason: `${why}; name cards both here and in HARRIER_AGENT_GPUS, or instances in both` };
}

/** @param uuid of a GPU that executions get; `all`: any */
export function sharedGpu(uuid: string): string {
  const which = uuid === 'all' ? 'cards are' : `${uuid} is`;
  return `${which} given to executions: leave out of HARRIER_AGENT_GPUS what a service has`;
}
