import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AgentRegistry, type LinkedAgent } from '../agent-link/agent-registry.ts';
import type { GpuDevice } from '../agent-link/gpu-inventory.ts';
import { AgentIndex } from './agent-index.ts';
import { Backfill } from './backfill.ts';
import { chooseGpus } from './gpu-choice.ts';
import { ANY_GPU, type Demand, type Requirement, reservationOf, slotUse } from './requirement.ts';

const CARDS = 4;
const SLOTS = 8;

const demand = (fields: Partial<Demand>): Demand => ({
  slots: 1,
  cpuMilli: 0,
  memoryBytes: 0,
  slurmJobs: 0,
  gpus: 0,
  gpu: ANY_GPU,
  ...fields,
});
const asks = (timeoutMs: number, of: Partial<Demand> | undefined): Requirement => ({
  tenantId: 't',
  environment: 'inline',
  selectors: [],
  taskClass: 'c',
  timeoutMs,
  demand: of === undefined ? undefined : demand(of),
});

/** One host, its clock, and what runs on it. */
class Host {
  nowMs = 0;
  readonly index = new AgentIndex();
  readonly registry = new AgentRegistry(this.index);
  readonly backfill = new Backfill({ registry: this.registry, index: this.index, nowMs: () => this.nowMs });
  readonly running = new Map<string, number>();

  constructor() {
    this.registry.add(linkedAgent());
  }

  /** Its agent leaves, and is linked anew. */
  relink(): void {
    const agent = this.registry.get('host');
    if (agent === undefined) throw new Error('it is gone');
    this.registry.remove(agent);
    this.registry.add(linkedAgent());
  }

  /** Places an execution if it can be, now. @param runMs how long it will really run */
  place(id: string, requirement: Requirement, runMs: number): boolean {
    const agent = this.index.place(requirement, id);
    if (agent === undefined) {
      this.backfill.blocked(id, requirement);
      return false;
    }
    const gpuUuids = requirement.demand === undefined ? [] : (chooseGpus(agent, requirement.demand) ?? []);
    const reservation = reservationOf(requirement.demand, gpuUuids);
    this.registry.reserveSlot(agent.id, id, slotUse(requirement, reservation, this.nowMs));
    this.running.set(id, this.nowMs + runMs);
    this.backfill.over(id);
    this.backfill.decided();
    return true;
  }

  pass(ms: number): void {
    this.nowMs += ms;
    for (const [id, endMs] of this.running) {
      if (endMs > this.nowMs) continue;
      this.running.delete(id);
      this.registry.freeSlot('host', id);
    }
  }
}

function linkedAgent(): LinkedAgent {
  const devices = Array.from(
    { length: CARDS },
    (_, at): GpuDevice => ({
      uuid: `GPU-${at}`,
      model: 'H100',
      memoryBytes: 1,
      driverVersion: '550',
      migProfile: '',
      free: true,
      quarantineReason: undefined,
    }),
  );
  return {
    id: 'host',
    name: 'host',
    tenantId: 't',
    labels: {},
    environments: new Set(['inline']),
    unavailableEnvironments: {},
    slots: SLOTS,
    active: 0,
    executions: 0,
    taken: undefined,
    capacity: { cpuMilli: 8_000, memoryBytes: Number.POSITIVE_INFINITY, slurmJobs: 0 },
    gpus: { devices, key: 'h100' },
    draining: false,
    stopping: false,
    drainRequested: false,
    instanceId: 'i',
    session: 1,
    isolation: 2,
    version: '',
    hardware: new Uint8Array(),
    services: new Uint8Array(),
    load: undefined,
    lastSeenMs: 0,
    channel: { send: () => undefined, sendLater: () => undefined, close: () => undefined },
  };
}

describe('Backfill', () => {
  test('small executions run around one that waits for all cards, but only those that are over in time', () => {
    const host = new Host();
    expect(host.place('first', asks(100_000, { gpus: 1 }), 100_000)).toBe(true);
    expect(host.place('large', asks(60_000, { gpus: CARDS }), 1)).toBe(false);
    host.pass(10_000);
    expect(host.place('large', asks(60_000, { gpus: CARDS }), 1)).toBe(false);
    expect(host.backfill.keptFor('host')).toBe('large');
    // The card of the first is free after 100 s at the latest.
    expect(host.place('short', asks(50_000, { gpus: 1 }), 50_000)).toBe(true);
    expect(host.place('long', asks(95_000, { gpus: 1 }), 95_000)).toBe(false);
    expect(host.place('without', asks(1_000_000, undefined), 1_000_000)).toBe(true);
    host.pass(90_000);
    expect(host.place('large', asks(60_000, { gpus: CARDS }), 1)).toBe(true);
    expect(host.backfill.keptFor('host')).toBeUndefined();
  });

  test('what stays leaves room for the one that waits', () => {
    const host = new Host();
    expect(host.place('first', asks(100_000, { cpuMilli: 4_000 }), 100_000)).toBe(true);
    const large = asks(60_000, { cpuMilli: 6_000 });
    host.place('large', large, 1);
    host.pass(10_000);
    host.place('large', large, 1);
    expect(host.place('beside', asks(1_000_000, { cpuMilli: 2_000 }), 1_000_000)).toBe(true);
    expect(host.place('more', asks(1_000_000, { cpuMilli: 1_000 }), 1)).toBe(false);
    host.pass(90_000);
    expect(host.place('large', large, 1)).toBe(true);
  });

  test('an agent that leaves is kept for nobody when it comes back', () => {
    const host = new Host();
    host.place('first', asks(100_000, { gpus: 1 }), 100_000);
    const large = asks(1_000, { gpus: CARDS });
    host.place('large', large, 1);
    host.pass(10_000);
    host.place('large', large, 1);
    host.relink();
    expect(host.place('other', asks(1_000_000, { gpus: 1 }), 1)).toBe(true);
  });

  test('agents that left leave those that are kept to others, whatever became of what they were kept for', () => {
    const host = new Host();
    const large = asks(60_000, { gpus: CARDS });
    for (let time = 0; time < 20; time++) {
      expect(host.place(`small-${time}`, asks(100_000, { gpus: 1 }), 100_000)).toBe(true);
      expect(host.place(`large-${time}`, large, 1)).toBe(false);
      host.pass(10_000);
      expect(host.place(`large-${time}`, large, 1)).toBe(false);
      expect(host.backfill.kept).toEqual([`large-${time}`]);
      host.relink();
      host.pass(100_000);
    }
  });

  test('whatever comes, one that waits for much is placed when its agent was to have room, at the latest', () => {
    const small = fc.record({
      gpus: fc.integer({ min: 0, max: 2 }),
      cpus: fc.integer({ min: 0, max: 4 }),
      timeoutMs: fc.integer({ min: 1_000, max: 200_000 }),
      share: fc.double({ min: 0.1, max: 1, noNaN: true }),
      pauseMs: fc.integer({ min: 0, max: 3_000 }),
    });
    const large = fc.record({ gpus: fc.integer({ min: 1, max: CARDS }), cpus: fc.integer({ min: 0, max: 8 }) });
    fc.assert(
      fc.property(fc.array(small, { minLength: 20, maxLength: 300, size: 'max' }), large, (arrivals, wanted) => {
        const host = new Host();
        const waiting = asks(60_000, { gpus: wanted.gpus, cpuMilli: wanted.cpus * 1_000 });
        let placed = false;
        let latestMs = Number.POSITIVE_INFINITY;
        for (const [at, { gpus, cpus, timeoutMs, share, pauseMs }] of arrivals.entries()) {
          host.pass(pauseMs);
          if (at >= 5 && !placed) {
            placed = host.place('large', waiting, 1);
            // No later than the end of the last that ran when the agent began to be kept.
            if (!placed && latestMs === Number.POSITIVE_INFINITY && host.backfill.keptFor('host') === 'large') {
              latestMs = Math.max(...[...host.registry.uses('host')].map(({ endMs }) => endMs));
            }
            expect(placed || host.nowMs < latestMs).toBe(true);
          }
          host.place(`small-${at}`, asks(timeoutMs, { gpus, cpuMilli: cpus * 1_000 }), timeoutMs * share);
        }
      }),
    );
  });
});
