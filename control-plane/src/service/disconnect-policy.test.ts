import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { Module_OnDisconnect as OnDisconnect } from '@harrier/shared/gen/module';
import { expect, test } from 'vitest';
import { checkDisconnect, maxDisconnectMs } from './disconnect-policy.ts';

const { KEEP, STOP, ON_DISCONNECT_UNSPECIFIED: UNSAID } = OnDisconnect;
const twoHours = durationFromMs(7_200_000);

test.each([
  [UNSAID, undefined, 0],
  [STOP, undefined, 0],
  [KEEP, undefined, 3_600_000],
  [KEEP, twoHours, 7_200_000],
  [KEEP, durationFromMs(0), 0],
])('policy %s with %o may run on for %s ms', (onDisconnect, maxDisconnect, ms) => {
  const policy = { onDisconnect, ...(maxDisconnect === undefined ? {} : { maxDisconnect }) };
  expect(() => checkDisconnect(policy)).not.toThrow();
  expect(maxDisconnectMs(policy)).toBe(ms);
});

test.each([UNSAID, STOP])(
  'how long an attempt may run on says nothing with policy %s, and is refused',
  (onDisconnect) => {
    expect(() => checkDisconnect({ onDisconnect, maxDisconnect: twoHours })).toThrow(
      'module.max_disconnect goes with on_disconnect KEEP',
    );
  },
);

test('a job of Slurm may run on for a day, unless its module says otherwise', () => {
  expect(maxDisconnectMs(undefined, true)).toBe(86_400_000);
  expect(maxDisconnectMs({ onDisconnect: UNSAID }, true)).toBe(86_400_000);
  expect(maxDisconnectMs({ onDisconnect: STOP }, true)).toBe(0);
  expect(maxDisconnectMs({ onDisconnect: KEEP, maxDisconnect: twoHours }, true)).toBe(7_200_000);
});

test('ad-hoc work is stopped before the lease ends', () => {
  expect(maxDisconnectMs(undefined)).toBe(0);
});
