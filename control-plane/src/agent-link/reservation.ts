import type { ExecutionReservation } from '../db/queries/read-executions.ts';

/** What an attempt takes of its agent, from the decision to its end. */
export interface Reservation {
  /** 1; 0 for what runs elsewhere, as a job of Slurm does. */
  slots: number;
  /** Thousandths of a processor: whole numbers add up to the same sum in every order. */
  cpuMilli: number;
  memoryBytes: number;
  slurmJobs: number;
  /** The GPUs and MIG instances that it has alone. */
  gpuUuids: readonly string[];
}

/** What almost everything takes. */
export const ONE_SLOT: Reservation = { slots: 1, cpuMilli: 0, memoryBytes: 0, slurmJobs: 0, gpuUuids: [] };

/** As it stands with the execution; null for one slot, which needs no words. */
export function storedReservation(reservation: Reservation): ExecutionReservation | null {
  const { slots, cpuMilli, memoryBytes, slurmJobs, gpuUuids } = reservation;
  if (reservation === ONE_SLOT) return null;
  const stored: ExecutionReservation = {};
  if (slots !== ONE_SLOT.slots) stored.slots = slots;
  if (cpuMilli > 0) stored.cpu_milli = cpuMilli;
  if (memoryBytes > 0) stored.memory_bytes = memoryBytes;
  if (slurmJobs > 0) stored.slurm_jobs = slurmJobs;
  if (gpuUuids.length > 0) stored.gpu_uuids = gpuUuids;
  return Object.keys(stored).length === 0 ? null : stored;
}

export function readReservation(stored: ExecutionReservation | null): Reservation {
  if (stored === null) return ONE_SLOT;
  return {
    slots: stored.slots ?? ONE_SLOT.slots,
    cpuMilli: stored.cpu_milli ?? 0,
    memoryBytes: stored.memory_bytes ?? 0,
    slurmJobs: stored.slurm_jobs ?? 0,
    gpuUuids: stored.gpu_uuids ?? [],
  };
}

/** What is taken of an agent altogether. */
export interface Taken {
  slots: number;
  cpuMilli: number;
  memoryBytes: number;
  slurmJobs: number;
  /** Each with the execution that has it. */
  gpus: ReadonlyMap<string, string>;
}

const NO_GPUS: ReadonlyMap<string, string> = new Map();

/** Sums of reservations that come and go; the caller sees to it that each comes and goes once. */
export class TakenResources implements Taken {
  slots = 0;
  cpuMilli = 0;
  memoryBytes = 0;
  slurmJobs = 0;
  /** Made when it is needed: few agents have any. */
  #gpus: Map<string, string> | undefined;

  get gpus(): ReadonlyMap<string, string> {
    return this.#gpus ?? NO_GPUS;
  }

  add(executionId: string, reservation: Reservation): void {
    this.#count(reservation, 1);
    if (reservation.gpuUuids.length === 0) return;
    this.#gpus ??= new Map();
    for (const uuid of reservation.gpuUuids) this.#gpus.set(uuid, executionId);
  }

  subtract(executionId: string, reservation: Reservation): void {
    this.#count(reservation, -1);
    for (const uuid of reservation.gpuUuids) if (this.#gpus?.get(uuid) === executionId) this.#gpus.delete(uuid);
  }

  #count({ slots, cpuMilli, memoryBytes, slurmJobs }: Reservation, sign: 1 | -1): void {
    this.slots += sign * slots;
    this.cpuMilli += sign * cpuMilli;
    this.memoryBytes += sign * memoryBytes;
    this.slurmJobs += sign * slurmJobs;
  }
}
