import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AgentRegistry, type LinkedAgent } from '../agent-link/agent-registry.ts';
import type { LaneKey, QueueCursor, WaitingExecution, WaitingLane } from '../db/queries/claim-executions.ts';
import { AgentIndex } from './agent-index.ts';
import { Backfill } from './backfill.ts';
import { FairTurns } from './fair-turns.ts';
import { type Decision, QueuePass } from './queue-pass.ts';
import { ANY_GPU, laneShape, type Requirement, shareOf } from './requirement.ts';
import { hasRoom } from './room.ts';

const PAGE = 3;

interface Wish {
  tenant: string;
  taskClass: string;
  priority: number;
  cpuMilli: number;
  key: string | undefined;
  refused: boolean;
}

/** The queue of a database, the agents, and what runs on them; it lives through many passes. */
class World {
  readonly index = new AgentIndex();
  readonly registry = new AgentRegistry(this.index);
  readonly backfill = new Backfill({ registry: this.registry, index: this.index, nowMs: () => 0 });
  readonly waiting = new Map<string, { entry: WaitingExecution; requirement: Requirement; key: LaneKey }>();
  readonly running = new Map<string, Decision>();
  readonly turns: FairTurns;
  #number = 0;

  constructor(slots: number) {
    for (const tenant of ['a', 'b']) this.registry.add(linkedAgent(tenant, slots));
    this.turns = new FairTurns({
      underWay: (tenantId, taskClass) => this.registry.countOf(shareOf({ tenantId, taskClass })),
      tenantWeight: () => 1,
      classWeight: () => 1,
    });
  }

  add(wish: Wish): void {
    const id = String(this.#number++).padStart(6, '0');
    const { tenant: tenantId, taskClass, priority, cpuMilli, key, refused } = wish;
    const requirement: Requirement = {
      tenantId,
      environment: 'inline',
      selectors: [],
      taskClass,
      demand: cpuMilli === 0 ? undefined : { slots: 1, cpuMilli, memoryBytes: 0, slurmJobs: 0, gpus: 0, gpu: ANY_GPU },
      refusals: new Map(refused ? [[tenantId, 'no room']] : []),
      limit: key === undefined ? undefined : { key, ofModule: key === 'module', maxActive: 1 },
    };
    const entry = { id, tenant_id: tenantId, task_class: taskClass, priority } as WaitingExecution;
    this.waiting.set(id, { entry, requirement, key: { tenantId, taskClass, shape: laneShape(requirement) } });
  }

  end(nth: number): void {
    const decision = [...this.running.values()][nth % Math.max(1, this.running.size)];
    if (decision === undefined) return;
    this.running.delete(decision.entry.id);
    this.registry.freeSlot(decision.agentId, decision.entry.id);
  }

  /** Passes as the scheduler makes them: another one when a limit has given back what was taken. @returns whether something is left */
  async pass(): Promise<boolean> {
    const reached = new Set<string>();
    while (true) {
      const before = reached.size;
      const left = await this.#passWith(reached);
      if (reached.size === before) return left;
    }
  }

  async #passWith(reached: Set<string>): Promise<boolean> {
    const pass = new QueuePass(
      {
        registry: this.registry,
        index: this.index,
        place: (requirement, id) => this.index.place(requirement, id),
        turns: this.turns,
        backfill: this.backfill,
        requirementOf: (entry) => Promise.resolve(this.waiting.get(entry.id)?.requirement),
        read: (key, after) => Promise.resolve(this.#entries(key, after).slice(0, PAGE)),
        pageEntries: PAGE,
        quotaOf: () => undefined,
        reached,
        turnOf: () => undefined,
      },
      this.#lanes(),
      PAGE,
    );
    while (true) {
      const decisions: Decision[] = [];
      await pass.decide(PAGE, decisions);
      if (decisions.length === 0) return pass.left;
      for (const decision of decisions) {
        const { limit, tenantId } = decision.requirement;
        if (limit !== undefined && this.#holders(tenantId, limit.key) >= limit.maxActive) {
          pass.limitReached(decision, 'key');
          this.registry.freeSlot(decision.agentId, decision.entry.id);
          continue;
        }
        this.waiting.delete(decision.entry.id);
        this.running.set(decision.entry.id, decision);
      }
    }
  }

  /** Whether an execution that waits could go to an agent now. */
  canGo({ tenantId, demand, refusals, limit }: Requirement): boolean {
    if (limit !== undefined && this.#holders(tenantId, limit.key) >= limit.maxActive) return false;
    const agent = this.registry.get(tenantId);
    return agent !== undefined && refusals?.has(tenantId) !== true && hasRoom(agent, demand);
  }

  #holders(tenantId: string, key: string): number {
    const same = ({ requirement }: Decision) => requirement.tenantId === tenantId && requirement.limit?.key === key;
    return [...this.running.values()].filter(same).length;
  }

  #lanes(): WaitingLane[] {
    const keys = new Map([...this.waiting.values()].map(({ key }) => [JSON.stringify(key), key]));
    return [...keys.values()].map((key) => ({ key, entries: this.#entries(key).slice(0, PAGE) }));
  }

  #entries(key: LaneKey, after?: QueueCursor): WaitingExecution[] {
    const name = JSON.stringify(key);
    const isBehind = ({ priority, id }: WaitingExecution) =>
      after === undefined || priority < after.priority || (priority === after.priority && id > after.id);
    return [...this.waiting.values()]
      .filter((one) => JSON.stringify(one.key) === name && isBehind(one.entry))
      .map(({ entry }) => entry)
      .toSorted((a, b) => b.priority - a.priority || (a.id < b.id ? -1 : 1));
  }
}

function linkedAgent(tenantId: string, slots: number): LinkedAgent {
  return {
    id: tenantId,
    name: tenantId,
    tenantId,
    labels: {},
    environments: new Set(['inline']),
    unavailableEnvironments: {},
    slots,
    active: 0,
    executions: 0,
    taken: undefined,
    capacity: { cpuMilli: 4_000, memoryBytes: Number.POSITIVE_INFINITY, slurmJobs: 0 },
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

const plain = (fields: Partial<Wish> = {}): Wish => ({
  tenant: 'a',
  taskClass: 'c',
  priority: 0,
  cpuMilli: 0,
  key: undefined,
  refused: false,
  ...fields,
});

describe('QueuePass', () => {
  test('what cannot be placed keeps nothing behind it waiting, and is tried once for all that ask the same', async () => {
    const world = new World(2);
    for (let n = 0; n < 50; n++) world.add(plain({ cpuMilli: 5_000, priority: 9 }));
    world.add(plain());
    let looks = 0;
    const { index } = world;
    const place = index.place.bind(index);
    index.place = (...given) => {
      looks++;
      return place(...given);
    };
    expect(await world.pass()).toBe(true);
    expect([...world.running.keys()]).toEqual(['000050']);
    expect(looks).toBe(2);
  });

  test('the urgent first, then who came first', async () => {
    const world = new World(3);
    world.add(plain());
    world.add(plain());
    world.add(plain({ priority: 5, cpuMilli: 100 }));
    world.add(plain());
    await world.pass();
    expect([...world.running.keys()]).toEqual(['000002', '000000', '000001']);
  });

  test('after any pass of a long life nothing waits that could go, no limit is exceeded, and all have run in the end', async () => {
    const wish = fc.record({
      tenant: fc.constantFrom('a', 'b'),
      taskClass: fc.constantFrom('short', 'long'),
      priority: fc.integer({ min: 0, max: 2 }),
      cpuMilli: fc.constantFrom(0, 0, 1_000, 3_000),
      key: fc.constantFrom(undefined, undefined, 'module', 'key:x', 'key:y'),
      // One that was sent back waits for another agent, and there is none: it would never run.
      refused: fc.constant(false),
    });
    const step = fc.record({ come: fc.array(wish, { maxLength: 6 }), go: fc.array(fc.nat(20), { maxLength: 4 }) });
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 5, maxLength: 40, size: 'max' }),
        fc.integer({ min: 1, max: 4 }),
        async (steps, slots) => {
          const world = new World(slots);
          for (const { come, go } of steps) {
            for (const one of come) world.add(one);
            for (const nth of go) world.end(nth);
            const left = await world.pass();
            const able = [...world.waiting.values()].filter(({ requirement }) => world.canGo(requirement));
            expect(able.map(({ entry }) => entry.id)).toEqual([]);
            expect(left).toBe(world.waiting.size > 0);
            for (const tenant of ['a', 'b']) {
              const agent = world.registry.get(tenant);
              expect(agent?.active).toBeLessThanOrEqual(slots);
              expect(agent?.taken?.cpuMilli ?? 0).toBeLessThanOrEqual(4_000);
            }
          }
          for (let rounds = 0; world.waiting.size > 0; rounds++) {
            expect(rounds).toBeLessThan(1_000);
            world.end(0);
            await world.pass();
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  test('one that its agent has sent back does not stand in the way of those behind it', async () => {
    const world = new World(2);
    world.add(plain({ refused: true }));
    world.add(plain());
    await world.pass();
    expect([...world.running.keys()]).toEqual(['000001']);
  });
});
