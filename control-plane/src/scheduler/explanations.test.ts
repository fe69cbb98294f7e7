import { parseLabelSelector } from '@harrier/shared';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Explanations } from './explanations.ts';
import type { Requirement } from './requirement.ts';

beforeEach(() => vi.useFakeTimers({ toFake: ['performance'] }));
afterEach(() => vi.useRealTimers());

const asks = (selector: string, fields: Partial<Requirement> = {}): Requirement => ({
  tenantId: 't',
  environment: 'inline',
  selectors: [parseLabelSelector(selector, 'agent_selector')],
  ...fields,
});

test('those who ask for the same are told the same for a second, the others and those that were refused their own', () => {
  const explanations = new Explanations();
  let asked = 0;
  const said = (requirement: Requirement) => explanations.of(requirement, () => `answer ${++asked}`);
  expect(said(asks('zone=eu'))).toBe('answer 1');
  expect(said(asks('zone=eu'))).toBe('answer 1');
  expect(said(asks('zone=us'))).toBe('answer 2');
  expect(said(asks('zone=eu', { tenantId: 'u' }))).toBe('answer 3');
  expect(said(asks('zone=eu', { refusals: new Map([['agent', 'no room']]) }))).toBe('answer 4');
  vi.advanceTimersByTime(1_000);
  expect(said(asks('zone=eu'))).toBe('answer 5');
});
