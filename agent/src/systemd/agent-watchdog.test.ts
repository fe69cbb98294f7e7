import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type AgentPulse, AgentWatchdog, reasonToRestart } from './agent-watchdog.ts';

const LINKED: AgentPulse = { linked: true, sinceMs: 0, acknowledgedMs: undefined, dialledMs: 0, leaseMs: 30_000 };
const AWAY: AgentPulse = { ...LINKED, linked: false };

test.each([
  ['linked a moment ago', LINKED, 1_000, undefined],
  ['linked, and acknowledged in time', { ...LINKED, acknowledgedMs: 100_000 }, 149_000, undefined],
  ['linked, but never acknowledged', LINKED, 50_001, 'the link is up, but no heartbeat was acknowledged for 50 s'],
  [
    'linked, and not acknowledged any more',
    { ...LINKED, acknowledgedMs: 100_000 },
    150_001,
    'the link is up, but no heartbeat was acknowledged for 50 s',
  ],
  ['linked to a control plane that acknowledges nothing', { ...LINKED, leaseMs: 0 }, 1e9, undefined],
  ['away, and trying', { ...AWAY, dialledMs: 1e9 }, 1e9 + 60_000, undefined],
  ['away, and not trying any more', AWAY, 120_001, 'no control plane was dialled for 120 s'],
  ['away since a moment ago after a long link', { ...AWAY, sinceMs: 1e9 }, 1e9 + 1, undefined],
])('an agent that is %s', (_, pulse, nowMs, reason) => {
  expect(reasonToRestart(pulse, nowMs)).toBe(reason);
});

test('a control plane that is away for however long is no reason, as long as it is sought', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 120_000 }), { maxLength: 200 }), (pauses) => {
      let nowMs = 0;
      const pulse = { ...AWAY };
      for (const pause of pauses) {
        nowMs += pause;
        expect(reasonToRestart(pulse, nowMs)).toBeUndefined();
        pulse.dialledMs = nowMs;
      }
    }),
  );
});

test('systemd is told when the agent is up, linked, away and about to stop', () => {
  const told: string[] = [];
  let nowMs = 0;
  let wrong: () => string | undefined = () => 'not watched';
  const systemd = {
    ready: (text: string) => told.push(`ready: ${text}`),
    status: (text: string) => told.push(text),
    watch: (check: typeof wrong) => {
      wrong = check;
    },
    stopping: () => told.push('stopping'),
  };
  const watchdog = new AgentWatchdog(systemd as never, () => nowMs);
  watchdog.start();
  watchdog.dialled();
  watchdog.linkUp('a-1', 30_000);
  nowMs = 40_000;
  watchdog.acknowledged();
  nowMs = 89_000;
  expect(wrong()).toBeUndefined();
  nowMs = 91_000;
  expect(wrong()).toContain('no heartbeat was acknowledged');
  watchdog.linkDown();
  expect(wrong()).toBeUndefined();
  watchdog.stopping();
  expect(told).toEqual([
    'ready: Not linked to a control plane; trying',
    'Linked to the control plane as agent a-1',
    'Not linked to a control plane; trying',
    'stopping',
  ]);
});
