import { expect, test } from 'vitest';
import { discoveryOf, type Target } from './targets.ts';

const TARGET: Target = {
  id: '0199',
  name: 'gpu-1',
  version: '1.2.3',
  labels: { zone: 'eu', 'example.org/rack-no': '"7"' },
  metrics_address: '[fd00::1]:9465',
  linked: true,
  draining: false,
};

test('targets are groups of Prometheus, with labels that it takes', () => {
  expect(JSON.parse(discoveryOf([TARGET]))).toEqual([
    {
      targets: ['[fd00::1]:9465'],
      labels: {
        agent: 'gpu-1',
        __meta_harrier_agent_id: '0199',
        __meta_harrier_agent_version: '1.2.3',
        __meta_harrier_agent_state: 'online',
        __meta_harrier_agent_label_zone: 'eu',
        __meta_harrier_agent_label_example_org_rack_no: '"7"',
      },
    },
  ]);
});

test('the state is that of the link, then that of a drain', () => {
  const states = [{ draining: true }, { linked: false }, { linked: false, draining: true }].map((change) => {
    const [group] = JSON.parse(discoveryOf([{ ...TARGET, ...change }])) as { labels: Record<string, string> }[];
    return group?.labels.__meta_harrier_agent_state;
  });
  expect(states).toEqual(['draining', 'offline', 'offline']);
});

test('without agents there is an empty list, which Prometheus needs', () => {
  expect(discoveryOf([])).toBe('[]\n');
});
