import { parseLabelSelector } from '@harrier/shared';
import { describe, expect, test } from 'vitest';
import type { Candidate } from '../agent-link/candidate.ts';
import { canBePlaced, explainWaiting, waitingConstraints } from './place.ts';
import type { Requirement } from './requirement.ts';

const agent = (name: string, fields: Partial<Candidate> = {}): Candidate => ({
  id: name,
  name,
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

const explain = (requirement: Requirement, agents: Candidate[]) =>
  explainWaiting(waitingConstraints(requirement, agents));

describe('place', () => {
  test('an agent that has no room for the environment cannot take it, and it is said', () => {
    const refusals = new Map([['small', 'no room for environments: 1 MiB free of 1024 MiB needed']]);
    const large = agent('large', { active: 4 });
    const agents = [agent('small'), large];
    expect(canBePlaced(asks('', { refusals }), agents)).toBe(true);
    expect(explain(asks('', { refusals }), agents)).toBe(
      'small: no room for environments: 1 MiB free of 1024 MiB needed; large: all 4 slots are in use',
    );
    refusals.set(large.id, 'no room either');
    expect(canBePlaced(asks('', { refusals }), agents)).toBe(false);
  });

  test('tells for every agent why it cannot', () => {
    const agents = [
      agent('full', { active: 4, labels: { zone: 'eu' } }),
      agent('far', { labels: { zone: 'us' } }),
      agent('leaving', { draining: true }),
      agent('theirs', { tenantId: 'u' }),
    ];
    expect(explain(asks('zone=eu'), agents)).toBe(
      'full: all 4 slots are in use; far: labels do not match "zone=eu"; leaving: draining',
    );
    expect(explain(asks(), [])).toBe('no agent is linked');
  });

  test('tells of a fleet how many agents have each reason, in a few words', () => {
    const fleet = Array.from({ length: 5000 }, (_, n) =>
      agent(`a${n}`, n % 5 === 0 ? { draining: true } : { active: 4 }),
    );
    expect(explain(asks(), [agent('far', { environments: new Set() }), ...fleet])).toBe(
      '4000 agents (a1 for one): all 4 slots are in use; 1000 agents (a0 for one): draining; far: has no environment "inline"',
    );
    const unlike = fleet.map((_, n) => agent(`a${n}`, { slots: n + 1, active: n + 1 }));
    const told = explain(asks(), unlike);
    expect(told).toMatch(/; a19: all 20 slots are in use; and 4980 more agents$/);
  });
});
