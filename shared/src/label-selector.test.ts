import { describe, expect, test } from 'vitest';
import { HarrierError } from './errors.ts';
import { matchesLabels, parseLabelSelector } from './label-selector.ts';

const LABELS = { zone: 'eu', gpu: 'h100', cores: '16', 'example.com/tier': 'gold', empty: '' };

describe('label selectors', () => {
  test.each([
    ['', true],
    ['zone=eu', true],
    ['zone==eu', true],
    ['zone=us', false],
    ['zone!=us', true],
    ['absent!=x', true],
    ['gpu in (h100, h200)', true],
    ['gpu in (a100)', false],
    ['gpu notin (a100,t4)', true],
    ['absent notin (a)', true],
    ['gpu', true],
    ['absent', false],
    ['!spot', true],
    ['!gpu', false],
    ['cores > 8', true],
    ['cores>16', false],
    ['cores < 17', true],
    ['zone > 1', false],
    ['example.com/tier=gold', true],
    ['empty=', true],
    ['zone=eu, gpu in (h100, h200), !spot, cores > 8', true],
    ['zone=eu, spot', false],
  ])('%j', (text, expected) => {
    expect(matchesLabels(parseLabelSelector(text, 'agent_selector'), LABELS)).toBe(expected);
  });

  test.each(
    ['zone=', 'zone in (', 'a b', '=x', 'zone=eu,,gpu', 'cores > many', '!', 'in (a)', 'zone in (a b)'].slice(1),
  )('%j is refused with the field and the part', (text) => {
    expect(() => parseLabelSelector(text, 'agent_selector')).toThrow(HarrierError);
    expect(() => parseLabelSelector(text, 'agent_selector')).toThrow(/^agent_selector: "/);
  });

  test('labels that objects have by nature are not labels', () => {
    expect(matchesLabels(parseLabelSelector('constructor', 'x'), {})).toBe(false);
  });
});
