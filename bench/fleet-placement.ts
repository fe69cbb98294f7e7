import { parseLabelSelector } from '@harrier/shared';
import { AgentRegistry, type LinkedAgent } from '../control-plane/src/agent-link/agent-registry.ts';
import { AgentIndex } from '../control-plane/src/scheduler/agent-index.ts';
import type { Requirement } from '../control-plane/src/scheduler/requirement.ts';
import { median } from './statistics.ts';

const AGENTS = 5_000;
const SLOTS = 4;
const ROUNDS = 5;
const DECISIONS = 20_000;
const TENANT = 'bench';

/** Decisions with their reservations: where agents are alike but for their zone, and where no two have the same labels. */
export function measurePlacement(): Record<string, number> {
  return {
    placements_per_s: placementsPerSecond((n) => ({ zone: `zone-${n % 8}` })),
    placements_unlike_per_s: placementsPerSecond((n) => ({ zone: `zone-${n % 8}`, host: `host-${n}` })),
  };
}

function placementsPerSecond(labelsOf: (n: number) => Record<string, string>): number {
  const index = new AgentIndex();
  const registry = new AgentRegistry(index);
  for (let n = 0; n < AGENTS; n++) registry.add(linkedAgent(n, labelsOf(n)));
  const requirements = ['', 'zone=zone-3', 'zone in (zone-1, zone-2), !spot'].map(
    (selector): Requirement => ({
      tenantId: TENANT,
      environment: 'inline',
      selectors: [parseLabelSelector(selector, 'agent_selector')],
    }),
  );
  const rates: number[] = [];
  let number = 0;
  /** What runs: the oldest ends when there is too much. */
  const running: { agentId: string; id: string }[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const startMs = performance.now();
    for (let n = 0; n < DECISIONS; n++) {
      const requirement = requirements[n % requirements.length] as Requirement;
      const agent = index.place(requirement);
      if (agent === undefined) throw new Error('no agent has room');
      const id = String(number++);
      registry.reserveSlot(agent.id, id);
      running.push({ agentId: agent.id, id });
      if (running.length < (AGENTS * SLOTS) / 10) continue;
      const oldest = running[number % running.length];
      if (oldest === undefined) continue;
      registry.freeSlot(oldest.agentId, oldest.id);
      running[number % running.length] = running[running.length - 1] as { agentId: string; id: string };
      running.pop();
    }
    rates.push((DECISIONS / (performance.now() - startMs)) * 1000);
  }
  return median(rates);
}

function linkedAgent(n: number, labels: Record<string, string>): LinkedAgent {
  return {
    id: `agent-${n}`,
    tenantId: TENANT,
    name: `agent-${n}`,
    labels,
    environments: new Set(['inline', 'venv']),
    unavailableEnvironments: {},
    slots: SLOTS,
    active: 0,
    executions: 0,
    taken: undefined,
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
