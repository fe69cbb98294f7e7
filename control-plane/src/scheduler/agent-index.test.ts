import { parseLabelSelector } from '@harrier/shared';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Candidate } from '../agent-link/candidate.ts';
import { AgentIndex } from './agent-index.ts';
import { canBePlaced, type Requirement } from './place.ts';

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
    });
    const step = fc.oneof(
      fc.record({ kind: fc.constant('link' as const), id: fc.nat(5), facts }),
      fc.record({ kind: fc.constant('unlink' as const), id: fc.nat(5) }),
      fc.record({ kind: fc.constant('load' as const), id: fc.nat(5), active: fc.nat(3) }),
      fc.record({ kind: fc.constant('drain' as const), id: fc.nat(5), draining: fc.boolean() }),
      fc.record({ kind: fc.constant('prepare' as const), id: fc.nat(5), names: fc.constantFrom(...environments) }),
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
          else known.environments = new Set(one.names);
          const now = agents.get(id);
          if (now === undefined) index.delete(id);
          else index.set(now);
          for (const tenantId of ['t', 'u']) {
            for (const environment of ['inline', 'docker']) {
              for (const selector of selectors) {
                const requirement = asks(selector, { tenantId, environment });
                expect(index.place(requirement)).toBe(looked(requirement, agents.values()));
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
