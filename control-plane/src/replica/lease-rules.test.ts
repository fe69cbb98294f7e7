import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  type AgentLease,
  brake,
  brakes,
  heartbeatIntervalMs,
  isAttemptLost,
  leaseEndMs,
  mayRenew,
  orphanedLeaseMs,
  REPLICA_VALID_MS,
} from './lease-rules.ts';

const lease = fc.integer({ min: 3_000, max: 3_600_000 });
const time = fc.integer({ min: 0, max: 10_000_000 });
const delay = fc.integer({ min: 0, max: 100_000 });
const BRAKE_MS = 300_000;

test('the control plane never takes a lease for ended before the agent does', () => {
  fc.assert(
    fc.property(lease, time, delay, delay, (leaseMs, sentMs, toServer, toAgent) => {
      // The agent counts from what it sent; when the renewal reaches it makes no difference.
      const agentEnd = sentMs + leaseMs;
      const renewedMs = sentMs + toServer;
      expect(leaseEndMs(renewedMs, leaseMs)).toBeGreaterThan(agentEnd);
      expect(isAttemptLost(leaseEndMs(renewedMs, leaseMs), 0, agentEnd + Math.min(toAgent, 999))).toBe(false);
    }),
  );
});

test('leases that a replica renewed while it was valid have ended when it is taken for dead for so long', () => {
  fc.assert(
    fc.property(lease, time, delay, delay, (leaseMs, beatSentMs, statement, later) => {
      const renewedMs = beatSentMs + later;
      if (!mayRenew(beatSentMs, renewedMs)) return;
      // The database's time of the beat is not before the statement was sent.
      const writtenMs = beatSentMs + statement;
      expect(writtenMs + orphanedLeaseMs(leaseMs)).toBeGreaterThanOrEqual(leaseEndMs(renewedMs, leaseMs));
    }),
  );
});

test('a replica renews only for a while after a beat, and never before the first', () => {
  expect(mayRenew(undefined, 0)).toBe(false);
  fc.assert(
    fc.property(time, delay, (beatMs, later) => {
      expect(mayRenew(beatMs, beatMs + later)).toBe(later < REPLICA_VALID_MS);
    }),
  );
});

test('two renewals may be lost within a lease', () => {
  fc.assert(
    fc.property(lease, (leaseMs) => {
      expect(3 * heartbeatIntervalMs(leaseMs)).toBeLessThanOrEqual(leaseMs);
    }),
  );
});

test('an attempt that may run on is waited for as long', () => {
  fc.assert(
    fc.property(time, fc.integer({ min: 0, max: 604_800_000 }), delay, (endMs, maxDisconnectMs, later) => {
      expect(isAttemptLost(endMs, maxDisconnectMs, endMs + maxDisconnectMs + later)).toBe(true);
      if (later > 0) expect(isAttemptLost(endMs, maxDisconnectMs, endMs + maxDisconnectMs - later)).toBe(false);
    }),
  );
});

test('the brake holds only together and only most of the agents, never for longer than it may', () => {
  const agents = fc.array(fc.option(fc.integer({ min: -BRAKE_MS * 2, max: 60_000 }), { nil: undefined }), {
    maxLength: 30,
  });
  fc.assert(
    fc.property(agents, lease, (ends, leaseMs) => {
      const given: AgentLease[] = ends.map((end, index) => ({ id: `${index}`, leaseEndMs: end }));
      const on = brake(given, 0, { leaseMs, brakeMs: BRAKE_MS });
      if (on === undefined) return;
      const recent = given.filter(({ leaseEndMs: end }) => end === undefined || end > -BRAKE_MS);
      expect(on.held.size).toBeGreaterThanOrEqual(3);
      expect(on.held.size * 2).toBeGreaterThan(recent.length);
      const held = given.filter(({ id }) => on.held.has(id)).map(({ leaseEndMs: end }) => end ?? Number.NaN);
      expect(Math.max(...held) - Math.min(...held)).toBeLessThanOrEqual(orphanedLeaseMs(leaseMs));
      expect(on.untilMs).toBe(Math.min(...held) + BRAKE_MS);
      expect(on.untilMs).toBeGreaterThan(0);
    }),
  );
});

test.each([
  ['all of three at once', [1, 2, 3], true],
  ['two of two', [1, 2], false],
  ['three of six', [1, 2, 3, undefined, undefined, undefined], false],
  ['three of five', [1, 2, 3, undefined, undefined], true],
  ['three of three, far apart', [-200_000, -100_000, 1], false],
  ['most are back', [1, undefined, undefined, undefined], false],
] as const)('the brake: %s', (_, ends, held) => {
  const agents = ends.map((leaseEnd, index) => ({ id: `${index}`, leaseEndMs: leaseEnd }));
  expect(brake(agents, 0, { leaseMs: 30_000, brakeMs: BRAKE_MS }) !== undefined).toBe(held);
});

test('each tenant has a brake of its own, as if there was no other', () => {
  const end = fc.option(fc.integer({ min: -BRAKE_MS * 2, max: 60_000 }), { nil: undefined });
  const agents = fc.array(fc.record({ tenantId: fc.constantFrom('a', 'b'), leaseEndMs: end }), { maxLength: 30 });
  fc.assert(
    fc.property(agents, lease, (given, leaseMs) => {
      const all = given.map((agent, index) => ({ id: `${index}`, ...agent }));
      const settings = { leaseMs, brakeMs: BRAKE_MS };
      const expected = ['a', 'b'].flatMap((tenant) => {
        const on = brake(
          all.filter(({ tenantId }) => tenantId === tenant),
          0,
          settings,
        );
        return [...(on?.held ?? [])].map((id) => [id, on?.untilMs] as const);
      });
      expect([...brakes(all, 0, settings)].toSorted()).toEqual(expected.toSorted());
    }),
  );
});
