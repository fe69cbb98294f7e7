import { parseLabelSelector } from '@harrier/shared';
import { AgentRegistry, type LinkedAgent } from '../../control-plane/src/agent-link/agent-registry.ts';
import type { GpuDevice, GpuInventory } from '../../control-plane/src/agent-link/gpu-inventory.ts';
import { AgentIndex } from '../../control-plane/src/scheduler/agent-index.ts';
import { chooseGpus } from '../../control-plane/src/scheduler/gpu-choice.ts';
import {
  ANY_GPU,
  type Demand,
  type Requirement,
  reservationOf,
  slotUse,
} from '../../control-plane/src/scheduler/requirement.ts';
import { median } from '../statistics.ts';

const AGENTS = 5_000;
const SLOTS = 16;
const CARDS = 8;
const GIB = 1024 ** 3;
const ROUNDS = 5;
const DECISIONS = 20_000;
/** Executions under way: about half of what the fleet has room for. */
const RUNNING = 40_000;
const TENANT = 'bench';
const MODELS = ['NVIDIA H100 80GB HBM3', 'NVIDIA A100-SXM4-40GB', 'NVIDIA L40S'];

/** Decisions with their reservations, over hosts of several kinds, for executions that ask for as many kinds of things. */
export function measureMixedPlacement(): Record<string, number> {
  const index = new AgentIndex();
  const registry = new AgentRegistry(index);
  for (let n = 0; n < AGENTS; n++) registry.add(linkedAgent(n));
  const requirements = mixedRequirements();
  const running: { agentId: string; id: string }[] = [];
  let number = 0;
  let missed = 0;
  const decide = () => {
    const id = String(number++);
    const requirement = requirements[number % requirements.length] as Requirement;
    const agent = index.place(requirement, id);
    if (agent === undefined) missed++;
    else {
      const { demand } = requirement;
      const gpuUuids = demand === undefined ? [] : (chooseGpus(agent, demand) ?? []);
      registry.reserveSlot(agent.id, id, slotUse(requirement, reservationOf(demand, gpuUuids), performance.now()));
      index.placed(requirement, agent.id);
      running.push({ agentId: agent.id, id });
    }
    if (running.length < RUNNING) return;
    // Any of them ends, in no order.
    const at = (number * 7_919) % running.length;
    const ended = running[at];
    const last = running.pop();
    if (ended === undefined || last === undefined) return;
    if (at < running.length) running[at] = last;
    registry.freeSlot(ended.agentId, ended.id);
  };
  while (number < RUNNING * 2) decide();
  const rates: number[] = [];
  missed = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const startMs = performance.now();
    for (let n = 0; n < DECISIONS; n++) decide();
    rates.push((DECISIONS / (performance.now() - startMs)) * 1000);
  }
  const missedRatio = missed / (ROUNDS * DECISIONS);
  if (missedRatio > 0.2)
    throw new Error(`${missedRatio * 100} % of the decisions found no agent: the fleet is too full`);
  return { placements_mixed_per_s: median(rates) };
}

function mixedRequirements(): Requirement[] {
  const asks = (selector: string, fields: Partial<Requirement> = {}): Requirement => ({
    tenantId: TENANT,
    environment: 'inline',
    selectors: selector === '' ? [] : [parseLabelSelector(selector, 'agent_selector')],
    taskClass: 'cpu_short',
    timeoutMs: 60_000,
    ...fields,
  });
  const needs = (fields: Partial<Demand>): Partial<Requirement> => ({
    demand: { slots: 1, cpuMilli: 0, memoryBytes: 0, slurmJobs: 0, gpus: 0, gpu: ANY_GPU, ...fields },
  });
  const h100 = { ...ANY_GPU, model: 'h100' };
  const large = { ...ANY_GPU, minMemoryBytes: 40 * GIB, minDriverVersion: [550] };
  return [
    asks(''),
    asks('zone=zone-3', { environment: 'venv', warmKey: 'one' }),
    asks('zone in (zone-1, zone-2), !spot', needs({ cpuMilli: 500 })),
    asks('cores > 32', needs({ cpuMilli: 4_000, memoryBytes: 8 * GIB })),
    asks('', needs({ memoryBytes: 16 * GIB })),
    asks('', { ...needs({ gpus: 1 }), taskClass: 'gpu' }),
    asks('zone!=zone-0', { ...needs({ gpus: 1, gpu: h100, cpuMilli: 2_000 }), taskClass: 'gpu' }),
    asks('', { environment: 'docker', warmKey: 'two', ...needs({ cpuMilli: 1_000 }) }),
    asks('', needs({ slots: 0, slurmJobs: 1 })),
    asks('spot', { environment: 'conda', warmKey: 'three' }),
    asks('', { ...needs({ gpus: 2, gpu: large }), taskClass: 'gpu' }),
    asks('zone=zone-5', { refusals: new Map([['agent-5', 'no room for environments']]) }),
  ];
}

function linkedAgent(n: number): LinkedAgent {
  const cores = n % 2 === 0 ? 64 : 32;
  const environments = ['inline', 'venv', ...(n % 3 === 0 ? ['docker'] : []), ...(n % 5 === 0 ? ['conda'] : [])];
  return {
    id: `agent-${n}`,
    tenantId: TENANT,
    name: `agent-${n}`,
    labels: { zone: `zone-${n % 8}`, cores: String(cores), ...(n % 10 === 0 ? { spot: 'yes' } : {}) },
    // A few hosts can submit to the cluster.
    environments: new Set(n % 100 === 0 ? [...environments, 'slurm'] : environments),
    unavailableEnvironments: {},
    slots: SLOTS,
    active: 0,
    executions: 0,
    taken: undefined,
    capacity: { cpuMilli: cores * 1000, memoryBytes: cores * 4 * GIB, slurmJobs: 1_000 },
    gpus: n % 4 === 0 ? inventory(n) : undefined,
    draining: false,
    stopping: false,
    drainRequested: false,
    instanceId: '1',
    session: 1,
    isolation: 2,
    version: '',
    hardware: new Uint8Array(),
    load: undefined,
    services: new Uint8Array(),
    lastSeenMs: 0,
    channel: { send: () => undefined, sendLater: () => undefined, close: () => undefined },
  };
}

function inventory(n: number): GpuInventory {
  const model = MODELS[(n / 4) % MODELS.length] ?? '';
  const devices = Array.from(
    { length: CARDS },
    (_, at): GpuDevice => ({
      uuid: `GPU-${n}-${at}`,
      model,
      memoryBytes: (model.includes('40GB') ? 40 : 80) * GIB,
      driverVersion: '550.54.14',
      migProfile: '',
      free: true,
      quarantineReason: undefined,
    }),
  );
  return { devices, key: devices.map((device) => device.model).join() };
}
