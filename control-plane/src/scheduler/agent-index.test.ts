import { parseLabelSelector } from '@harrier/shared';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Candidate } from '../agent-link/candidate.ts';
import type { GpuDevice, GpuInventory } from '../agent-link/gpu-inventory.ts';
import { TakenResources } from '../agent-link/reservation.ts';
import { AgentIndex } from './agent-index.ts';
import { availableGpus } from './gpu-choice.ts';
import { canBePlaced } from './place.ts';
import { ANY_GPU, type Demand, type Requirement } from './requirement.ts';
import { hasRoom, loadOf } from './room.ts';

const agent = (id: string, fields: Partial<Candidate> = {}): Candidate => ({
  id,
  name: id,
  tenantId: 't',
  labels: {},
  environments: new Set(['inline']),
  unavailableEnvironments: {},
  slots: 4,
  active: 0,
  draining: false,
  ...fields,
});
const asks = (selector = '', fields: Partial<Requirement> = {}): Requirement => ({
  tenantId: 't',
  environment: 'inline',
  selectors: [parseLabelSelector(selector, 'agent_selector')],
  ...fields,
});
function indexOf(...agents: Candidate[]): AgentIndex {
  const index = new AgentIndex();
  for (const one of agents) index.set(one);
  return index;
}

/** What the index stands for: a look at every agent. */
function looked(requirement: Requirement, agents: Iterable<Candidate>): Candidate | undefined {
  let best: Candidate | undefined;
  for (const one of agents) {
    if (one.active >= one.slots || !canBePlaced(requirement, [one])) continue;
    if (best === undefined || one.active / one.slots < best.active / best.slots) best = one;
  }
  return best;
}

const GIB = 1024 ** 3;
const card = (uuid: string, fields: Partial<GpuDevice> = {}): GpuDevice => ({
  uuid,
  model: 'H100',
  memoryBytes: 80 * GIB,
  driverVersion: '550',
  migProfile: '',
  free: true,
  quarantineReason: undefined,
  ...fields,
});
const inventory = (...devices: GpuDevice[]): GpuInventory => ({
  devices,
  key: devices
    .map(({ model }) => model)
    .toSorted()
    .join(),
});
const demand = (fields: Partial<Demand>): Demand => ({
  slots: 1,
  cpuMilli: 0,
  memoryBytes: 0,
  slurmJobs: 0,
  gpus: 0,
  gpu: ANY_GPU,
  ...fields,
});

describe('AgentIndex with resources', () => {
  test('of agents with free cards the one with the fewest is taken, and only one that has what is asked for', () => {
    const agents = [
      agent('eight', { gpus: inventory(...Array.from({ length: 8 }, (_, n) => card(`a${n}`))) }),
      agent('two', { gpus: inventory(card('b0'), card('b1')), active: 3 }),
      agent('old', { gpus: inventory(card('c0', { model: 'V100' })) }),
      agent('none'),
    ];
    const index = indexOf(...agents);
    expect(index.place(asks('', { demand: demand({ gpus: 1 }) }))?.id).toBe('old');
    const h100 = { ...ANY_GPU, model: 'h100' };
    expect(index.place(asks('', { demand: demand({ gpus: 1, gpu: h100 }) }))?.id).toBe('two');
    expect(index.place(asks('', { demand: demand({ gpus: 3 }) }))?.id).toBe('eight');
    expect(index.place(asks('', { demand: demand({ gpus: 9 }) }))).toBeUndefined();
  });

  test('an agent that holds the environment is taken until it is much more loaded than another', () => {
    const [first, second] = [agent('first', { slots: 8 }), agent('second', { slots: 8 })];
    const index = indexOf(first, second);
    const warm = asks('', { warmKey: 'environment' });
    index.placed(warm, 'second');
    second.active = 4;
    index.set(second);
    expect(index.place(warm)?.id).toBe('second');
    expect(index.place(asks())?.id).toBe('first');
    second.active = 5;
    index.set(second);
    expect(index.place(warm)?.id).toBe('first');
    expect(index.place(asks('', { warmKey: 'other' }))?.id).toBe('first');
  });

  test('a job of Slurm goes where there are fewest, full of other work or not', () => {
    const facts = (slurmJobs: number): Partial<Candidate> => {
      const taken = new TakenResources();
      taken.add('job', { slots: 4, cpuMilli: 0, memoryBytes: 0, slurmJobs, gpuUuids: [] });
      const capacity = { cpuMilli: 1, memoryBytes: 1, slurmJobs: 10 };
      return { environments: new Set(['inline', 'slurm']), active: 4, taken, capacity };
    };
    const index = indexOf(agent('idle'), agent('more', facts(5)), agent('fewer', facts(3)));
    const job = asks('', { demand: demand({ slots: 0, slurmJobs: 1 }) });
    expect(index.place(job)?.id).toBe('fewer');
    expect(indexOf(agent('idle'), agent('all', facts(10))).place(job)).toBeUndefined();
  });

  test('after any changes of what is taken it takes an agent when a look at all of them finds one, and the least loaded', () => {
    const step = fc.record({
      id: fc.nat(4),
      kind: fc.constantFrom('link' as const, 'unlink' as const, 'take' as const, 'card' as const),
      slots: fc.integer({ min: 1, max: 3 }),
      cards: fc.integer({ min: 0, max: 3 }),
      model: fc.constantFrom('H100', 'V100'),
      cpuMilli: fc.integer({ min: 0, max: 3_000 }),
      used: fc.nat(3),
    });
    const asked = fc.record({
      gpus: fc.integer({ min: 0, max: 3 }),
      cpuMilli: fc.integer({ min: 0, max: 3_000 }),
      model: fc.constantFrom('', 'h100'),
    });
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 30 }),
        fc.array(asked, { minLength: 1, maxLength: 4 }),
        (steps, wishes) => {
          const index = new AgentIndex();
          const agents = new Map<string, Candidate>();
          for (const { id: number, kind, slots, cards, model, cpuMilli, used } of steps) {
            const id = String(number);
            const known = agents.get(id);
            if (kind === 'link') {
              const devices = Array.from({ length: cards }, (_, n) => card(`${id}-${n}`, { model }));
              const gpus = cards === 0 ? undefined : inventory(...devices);
              const capacity = { cpuMilli: 3_000, memoryBytes: Number.POSITIVE_INFINITY, slurmJobs: 0 };
              agents.set(id, agent(id, { slots, capacity, gpus }));
            } else if (known === undefined) continue;
            else if (kind === 'unlink') agents.delete(id);
            else if (kind === 'take') {
              const taken = new TakenResources();
              const gpuUuids = (known.gpus?.devices ?? []).slice(0, used).map(({ uuid }) => uuid);
              taken.add('x', { slots: Math.min(used, known.slots), cpuMilli, memoryBytes: 0, slurmJobs: 0, gpuUuids });
              known.taken = taken;
              known.active = taken.slots;
            } else if (known.gpus !== undefined) {
              known.gpus = inventory(...known.gpus.devices.map((device, n) => ({ ...device, free: n >= used })));
            }
            const now = agents.get(id);
            if (now === undefined) index.delete(id);
            else index.set(now);
            for (const wish of wishes) {
              const wanted = demand({ ...wish, gpu: { ...ANY_GPU, model: wish.model } });
              const found = index.place(asks('', { demand: wanted }));
              const fit = [...agents.values()].filter((one) => hasRoom(one, wanted));
              expect(found === undefined).toBe(fit.length === 0);
              if (found === undefined) continue;
              expect(fit).toContain(found);
              if (wish.gpus > 0) expect(availableGpus(found)).toBe(Math.min(...fit.map(availableGpus)));
              else expect(loadOf(found)).toBe(Math.min(...fit.map(loadOf)));
            }
          }
        },
      ),
    );
  });
});

describe('AgentIndex', () => {
  test('takes the least loaded agent, whatever its labels', () => {
    const agents = [
      agent('a', { active: 2 }),
      agent('b', { active: 3, slots: 8, labels: { zone: 'eu' } }),
      agent('c', { active: 3 }),
    ];
    expect(indexOf(...agents).place(asks())?.id).toBe('b');
  });

  test('of two that are loaded alike the first is taken', () => {
    expect(indexOf(agent('a', { labels: { zone: 'eu' } }), agent('b')).place(asks())?.id).toBe('a');
    expect(indexOf(agent('b'), agent('a', { labels: { zone: 'eu' } })).place(asks())?.id).toBe('b');
  });

  test.each([
    ['full', { active: 4 }],
    ['draining', { draining: true }],
    ['of another tenant', { tenantId: 'u' }],
    ['without the environment', { environments: new Set<string>() }],
    ['without the label', { labels: { zone: 'us' } }],
  ])('leaves out an agent that is %s', (_, fields) => {
    const fit = agent('fit', { labels: { zone: 'eu' }, active: 3 });
    const unfit = agent('unfit', { labels: { zone: 'eu' }, ...fields });
    expect(indexOf(unfit, fit).place(asks('zone=eu'))?.id).toBe('fit');
    expect(indexOf(unfit).place(asks('zone=eu'))).toBeUndefined();
  });

  test('leaves out an agent that has no room for the environment', () => {
    const refusals = new Map([['small', 'no room for environments']]);
    const index = indexOf(agent('small'), agent('large', { active: 3 }));
    expect(index.place(asks())?.id).toBe('small');
    expect(index.place(asks('', { refusals }))?.id).toBe('large');
  });

  test('says whether any agent has room', () => {
    const only = agent('only', { slots: 1 });
    const index = indexOf(only);
    expect(index.hasRoom).toBe(true);
    only.active = 1;
    index.set(only);
    expect(index.hasRoom).toBe(false);
    index.delete(only.id);
    index.set(agent('only', { draining: true }));
    expect(index.hasRoom).toBe(false);
  });

  test('after any changes it takes the agent that a look at all of them would take', () => {
    const selectors = ['', 'zone=eu', 'zone!=eu', 'zone in (eu, us), !spot', 'spot'];
    const environments = [['inline'], ['inline', 'venv'], ['docker']];
    const facts = fc.record({
      tenantId: fc.constantFrom('t', 'u'),
      labels: fc.constantFrom({}, { zone: 'eu' }, { zone: 'us' }, { zone: 'us', spot: 'yes' }),
      environments: fc.constantFrom(...environments).map((names) => new Set(names)),
      slots: fc.integer({ min: 1, max: 3 }),
      isolation: fc.constantFrom(0, 1, 2),
    });
    const step = fc.oneof(
      fc.record({ kind: fc.constant('link' as const), id: fc.nat(5), facts }),
      fc.record({ kind: fc.constant('unlink' as const), id: fc.nat(5) }),
      fc.record({ kind: fc.constant('load' as const), id: fc.nat(5), active: fc.nat(3) }),
      fc.record({ kind: fc.constant('drain' as const), id: fc.nat(5), draining: fc.boolean() }),
      fc.record({ kind: fc.constant('prepare' as const), id: fc.nat(5), names: fc.constantFrom(...environments) }),
      fc.record({ kind: fc.constant('isolate' as const), id: fc.nat(5), level: fc.constantFrom(1, 2) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), fc.subarray(['0', '1', '2']), (steps, refusing) => {
        const index = new AgentIndex();
        const agents = new Map<string, Candidate>();
        for (const one of steps) {
          const id = String(one.id);
          const known = agents.get(id);
          if (one.kind === 'link') {
            agents.delete(id);
            agents.set(id, agent(id, one.facts));
          } else if (known === undefined) continue;
          else if (one.kind === 'unlink') agents.delete(id);
          else if (one.kind === 'load') known.active = Math.min(one.active, known.slots);
          else if (one.kind === 'drain') known.draining = one.draining;
          else if (one.kind === 'prepare') known.environments = new Set(one.names);
          else known.isolation = one.level;
          const now = agents.get(id);
          if (now === undefined) index.delete(id);
          else index.set(now);
          for (const tenantId of ['t', 'u']) {
            for (const environment of ['inline', 'docker']) {
              for (const selector of selectors) {
                const requirement = asks(selector, { tenantId, environment });
                expect(index.place(requirement)).toBe(looked(requirement, agents.values()));
                const guarded = { ...requirement, isolation: 2 };
                expect(index.place(guarded)).toBe(looked(guarded, agents.values()));
                const refusals = new Map(refusing.map((refuser) => [refuser, 'no room']));
                const picky = { ...requirement, refusals };
                expect(index.place(picky)).toBe(looked(picky, agents.values()));
              }
            }
          }
          const hasRoom = [...agents.values()].some(({ active, slots, draining }) => !draining && active < slots);
          expect(index.hasRoom).toBe(hasRoom);
        }
      }),
    );
  });
});
