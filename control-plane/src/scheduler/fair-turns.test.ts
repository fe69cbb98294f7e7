import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FairTurns, type Lane } from './fair-turns.ts';

const lane = (tenantId: string, taskClass: string, id: string, priority = 0): Lane => ({
  tenantId,
  taskClass,
  priority,
  id,
});
const turnsWith = (weights: Readonly<Record<string, number>> = {}, underWay: Readonly<Record<string, number>> = {}) =>
  new FairTurns({
    underWay: (tenantId, taskClass) => underWay[`${tenantId} ${taskClass}`] ?? 0,
    tenantWeight: (tenantId) => weights[tenantId] ?? 1,
    classWeight: (taskClass) => weights[taskClass] ?? 1,
  });

/** Lets whoever is next have so many turns. @returns who had them */
function serve(turns: FairTurns, lanes: readonly Lane[], count: number): Lane[] {
  return Array.from({ length: count }, () => {
    const next = turns.next(lanes);
    if (next === undefined) throw new Error('nobody is next');
    turns.served(next);
    return next;
  });
}

describe('FairTurns', () => {
  test('of one class who came first is first, but for what is more urgent', () => {
    const lanes = [lane('t', 'c', '2'), lane('t', 'c', '1'), lane('t', 'c', '3', 5)];
    expect(turnsWith().next(lanes)?.id).toBe('3');
    expect(turnsWith().next(lanes.slice(0, 2))?.id).toBe('1');
    expect(turnsWith().next([])).toBeUndefined();
  });

  test('a class that has less under way for its weight is first, and no class waits for ever', () => {
    const lanes = [lane('t', 'long', '1'), lane('t', 'short', '2')];
    const busy = { 't long': 30, 't short': 20 };
    expect(turnsWith({}, busy).next(lanes)?.taskClass).toBe('short');
    expect(turnsWith({ long: 2 }, busy).next(lanes)?.taskClass).toBe('long');
    expect(serve(turnsWith({}, busy), lanes, 16).map(({ taskClass }) => taskClass)).toContain('long');
  });

  test('what is urgent to one tenant takes no turn of another', () => {
    const lanes = [lane('a', 'c', '1', 100), lane('b', 'c', '2')];
    const served = serve(turnsWith(), lanes, 10);
    expect(served.filter(({ tenantId }) => tenantId === 'b')).toHaveLength(5);
  });

  test('a tenant that was away gets nothing for it', () => {
    const turns = turnsWith();
    serve(turns, [lane('a', 'c', '1')], 1_000);
    const served = serve(turns, [lane('a', 'c', '1'), lane('b', 'c', '2')], 10);
    expect(served.filter(({ tenantId }) => tenantId === 'b')).toHaveLength(5);
  });

  test('tenants that wait all the time have turns by their weights, whoever else comes and goes', () => {
    const weight = fc.integer({ min: 1, max: 5 });
    const visits = fc.array(fc.subarray(['x', 'y', 'z']), { minLength: 200, maxLength: 400, size: 'max' });
    fc.assert(
      fc.property(fc.record({ a: weight, b: weight, x: weight }), visits, (weights, others) => {
        const turns = turnsWith(weights);
        const had = new Map<string, number>();
        for (const present of others) {
          const lanes = ['a', 'b', ...present].map((tenantId) => lane(tenantId, 'c', tenantId));
          for (const { tenantId } of serve(turns, lanes, 1)) had.set(tenantId, (had.get(tenantId) ?? 0) + 1);
        }
        const shareOf = (tenantId: 'a' | 'b') => (had.get(tenantId) ?? 0) / weights[tenantId];
        // Each is behind by one turn at most.
        expect(Math.abs(shareOf('a') - shareOf('b'))).toBeLessThanOrEqual(1 / weights.a + 1 / weights.b);
      }),
    );
  });

  test('however much one tenant has waiting, another one is placed within two decisions of its coming', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 100 }), (pauses) => {
        const turns = turnsWith();
        const flood = Array.from({ length: 20 }, (_, n) => lane('flood', `class-${n % 3}`, `f${n}`, n));
        for (const pause of pauses) {
          serve(turns, flood, pause);
          const waits = serve(turns, [...flood, lane('calm', 'c', 'z')], 2).findIndex((at) => at.tenantId === 'calm');
          expect(waits).toBeGreaterThanOrEqual(0);
        }
      }),
    );
  });
});
