import { fromBinary } from '@bufbuild/protobuf';
import { HardwareSchema } from '@harrier/shared/gen/agent';
import type { Candidate } from '../agent-link/candidate.ts';
import { readCapacity } from '../agent-link/capacity.ts';
import { gpuInventory } from '../agent-link/gpu-inventory.ts';
import { readReservation, TakenResources } from '../agent-link/reservation.ts';
import type { AgentReservations, AgentRow } from '../db/queries/agents.ts';

/** What the database tells of an agent that is not linked here, as placement would see it. */
export function candidateOf(row: AgentRow, reservations: AgentReservations): Candidate {
  const taken = takenOf(reservations);
  return {
    id: row.id,
    name: row.name,
    tenantId: row.tenant_id,
    labels: row.labels,
    environments: new Set(row.environments),
    unavailableEnvironments: row.unavailable_environments,
    isolation: row.isolation,
    slots: row.slots,
    active: taken.slots,
    draining: row.drain_requested || row.stopping,
    capacity: readCapacity(row.capacity),
    gpus: gpuInventory(fromBinary(HardwareSchema, row.hardware)),
    taken,
  };
}

/** What attempts take altogether. */
export function takenOf({ active, reservations }: AgentReservations): TakenResources {
  const taken = new TakenResources();
  for (const { id, reservation } of reservations) taken.add(id, readReservation(reservation));
  // The others take one slot each.
  taken.slots += active - reservations.length;
  return taken;
}
