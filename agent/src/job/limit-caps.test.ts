import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { AssignmentSchema } from '@harrier/shared/gen/link';
import { LimitsSchema, Limits_Network as Network } from '@harrier/shared/gen/module';
import { expect, test } from 'vitest';
import { deniedGpus, deniedLimit } from './limit-caps.ts';

const CAPS = { cpu: 8, memoryBytes: 1000, tmpBytes: 100, network: 'index' } as const;

function denied(limits: MessageInitShape<typeof LimitsSchema>): string | undefined {
  return deniedLimit(create(LimitsSchema, limits), CAPS);
}

test('limits up to the caps are allowed', () => {
  expect(denied({ memoryBytes: 1n, tmpBytes: 1n })).toBeUndefined();
  expect(denied({ memoryBytes: 1000n, tmpBytes: 100n })).toBeUndefined();
});

test.each([
  [{ memoryBytes: 1001n, tmpBytes: 1n }, 'memory_bytes asks for 1001 bytes; this agent allows at most 1000 bytes'],
  [{ memoryBytes: 1n, tmpBytes: 101n }, 'tmp_bytes asks for 101 bytes; this agent allows at most 100 bytes'],
  [{ tmpBytes: 1n }, 'memory_bytes asks for no bound; this agent allows at most 1000 bytes'],
  [{ memoryBytes: 1n }, 'tmp_bytes asks for no bound; this agent allows at most 100 bytes'],
])('limits beyond them are named: %o', (limits, text) => {
  expect(denied(limits)).toContain(`limits.${text} (HARRIER_AGENT_MAX_`);
});

test('an assignment without limits is not allowed', () => {
  expect(deniedLimit(undefined, CAPS)).toContain('limits.memory_bytes');
});

test.each([
  ['none', [Network.NETWORK_UNSPECIFIED, Network.NONE]],
  ['index', [Network.NETWORK_UNSPECIFIED, Network.NONE, Network.INDEX]],
  ['egress', [Network.NETWORK_UNSPECIFIED, Network.NONE, Network.INDEX, Network.EGRESS]],
  ['full', [Network.NETWORK_UNSPECIFIED, Network.NONE, Network.INDEX, Network.EGRESS, Network.FULL]],
] as const)('a cap of %s allows what is no more, and nothing that it does not know', (cap, expected) => {
  const limits = (network: number) =>
    create(LimitsSchema, { memoryBytes: 1n, tmpBytes: 1n, network: network as Network });
  const allowed = [0, 1, 2, 3, 4, 5].filter(
    (asked) => deniedLimit(limits(asked), { ...CAPS, network: cap }) === undefined,
  );
  expect(allowed).toEqual(expected);
});

test('more network than the cap is named with its setting', () => {
  expect(denied({ memoryBytes: 1n, tmpBytes: 1n, network: Network.FULL })).toBe(
    'limits.network asks for FULL; this agent allows at most INDEX (HARRIER_AGENT_MAX_NETWORK)',
  );
});

test('processors that the agent does not have for executions are named with their setting', () => {
  expect(denied({ memoryBytes: 1n, tmpBytes: 1n, cpu: 8 })).toBeUndefined();
  expect(denied({ memoryBytes: 1n, tmpBytes: 1n, cpu: 8.5 })).toBe(
    'limits.cpu asks for 8.5 processors; this agent has 8 for executions (HARRIER_AGENT_CPUS)',
  );
});

test('an assignment names as many cards as it asks for, unless Slurm gives them', () => {
  const assigned = (gpus: number, gpuUuids: string[], slurm = false) =>
    deniedGpus(create(AssignmentSchema, { limits: { gpus }, gpuUuids, ...(slurm && { slurm: {} }) }));
  expect(assigned(0, [])).toBeUndefined();
  expect(assigned(2, ['GPU-a', 'GPU-b'])).toBeUndefined();
  expect(assigned(2, ['GPU-a'])).toBe('limits.gpus asks for 2, and the assignment names 1');
  expect(assigned(0, ['GPU-a'])).toBe('limits.gpus asks for 0, and the assignment names 1');
  expect(assigned(4, [], true)).toBeUndefined();
});
