import type { Capacity } from './capacity.ts';
import type { GpuInventory } from './gpu-inventory.ts';
import type { Taken } from './reservation.ts';

/** What placement needs to know of an agent. */
export interface Candidate {
  id: string;
  name: string;
  tenantId: string;
  labels: Readonly<Record<string, string>>;
  /** What it can prepare: kinds of environments, `nodejs`, and `slurm`. */
  environments: ReadonlySet<string>;
  /** What it cannot, with the reason. */
  unavailableEnvironments: Readonly<Record<string, string>>;
  /** Isolation.Level of what it runs. Absent: not known. */
  isolation?: number;
  /** Executions at once, at most; those of Slurm do not count. */
  slots: number;
  /** Slots in use. */
  active: number;
  draining: boolean;
  /** Absent: it has told none. */
  capacity?: Capacity | undefined;
  /** Cards that it gives; replaced when any of them changes. */
  gpus?: GpuInventory | undefined;
  /** What is reserved on it. Absent: nothing but slots. */
  taken?: Taken | undefined;
}
