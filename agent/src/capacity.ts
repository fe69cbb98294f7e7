import { create, equals } from '@bufbuild/protobuf';
import { type Resources, ResourcesSchema } from '@harrier/shared/gen/agent';

export interface CapacitySources {
  cpu: number;
  memoryBytes: number;
  /** GPUs and MIG instances that can be given. */
  gpus: () => number;
  /** Jobs of Slurm at once; 0: there is no Slurm. */
  slurmJobs: () => number;
}

/** What the executions of this agent can have altogether, and what the control plane was told of it. */
export class Capacity {
  readonly #sources: CapacitySources;
  #told: Resources | undefined;

  constructor(sources: CapacitySources) {
    this.#sources = sources;
  }

  /** The capacity, and takes it as told. */
  tell(): Resources {
    const { cpu, memoryBytes, gpus, slurmJobs } = this.#sources;
    const now = { cpu, memoryBytes: BigInt(memoryBytes), gpus: gpus(), slurmJobs: slurmJobs() };
    this.#told = create(ResourcesSchema, now);
    return this.#told;
  }

  /** The capacity when it differs from what was told last. */
  tellChange(): Resources | undefined {
    const before = this.#told;
    const now = this.tell();
    return before !== undefined && equals(ResourcesSchema, before, now) ? undefined : now;
  }
}
