import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { LimitsSchema, Limits_Network as Network } from '@harrier/shared/gen/module';
import { expect, test } from 'vitest';
import { deniedLimit } from './limit-caps.ts';

const CAPS = { memoryBytes: 1000, tmpBytes: 100, network: 'index' } as const;

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
