import { parseLabelSelector } from '@harrier/shared';
import { describe, expect, test } from 'vitest';
import type { Candidate } from '../agent-link/candidate.ts';
import { canBePlaced, explainWaiting, place, type Requirement } from './place.ts';

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

describe('place', () => {
  test('takes the least loaded agent', () => {
    expect(
      place(asks(), [agent('a', { active: 2 }), agent('b', { active: 3, slots: 8 }), agent('c', { active: 3 })])?.id,
    ).toBe('b');
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
    expect(place(asks('zone=eu'), [unfit, fit])?.id).toBe('fit');
    expect(place(asks('zone=eu'), [unfit])).toBeUndefined();
  });

  test('leaves out an agent that has no room for the environment, and says so', () => {
    const refusals = new Map([['small', 'no room for environments: 1 MiB free of 1024 MiB needed']]);
    const large = agent('large', { active: 4 });
    const agents = [agent('small'), large];
    expect(place(asks('', { refusals }), agents)).toBeUndefined();
    expect(canBePlaced(asks('', { refusals }), agents)).toBe(true);
    expect(explainWaiting(asks('', { refusals }), agents)).toBe(
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
    expect(explainWaiting(asks('zone=eu'), agents)).toBe(
      'full: all 4 slots are in use; far: labels do not match "zone=eu"; leaving: draining',
    );
    expect(explainWaiting(asks(), [])).toBe('no agent is linked');
  });
});
