import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { GpuTable } from './gpu-table.ts';

const A = { executionId: 'a', attempt: 1 };
const B = { executionId: 'b', attempt: 1 };

function tableOf(...uuids: string[]): GpuTable {
  const table = new GpuTable();
  table.setUnits(uuids.map((uuid) => ({ uuid, cardUuid: uuid, notGiven: undefined })));
  return table;
}

describe('a card', () => {
  test('is given to one attempt, all of its cards or none', () => {
    const table = tableOf('x', 'y', 'z');
    expect(table.reserve(A, ['x', 'y'])).toBeUndefined();
    expect(table.reserve(B, ['z', 'y'])).toBe('GPU y is in use by attempt 1 of execution a');
    expect(table.stateOf('z')).toBe('free');
    expect(table.reserve(A, ['x', 'y']), 'told twice').toBeUndefined();
  });

  test('is nobody else’s before it was checked', () => {
    const table = tableOf('x');
    table.reserve(A, ['x']);
    expect(table.release(A)).toEqual(['x']);
    expect(table.release(A), 'told twice').toEqual([]);
    expect(table.reserve(B, ['x'])).toBe('GPU x is still being checked after attempt 1 of execution a');
    table.checked('x');
    expect(table.reserve(B, ['x'])).toBeUndefined();
  });

  test('is free at once when nothing has run', () => {
    const table = tableOf('x');
    table.reserve(A, ['x']);
    table.giveBack(A);
    expect(table.reserve(B, ['x'])).toBeUndefined();
  });

  test('that is quarantined is given to nobody, alone, and its instances with it', () => {
    const table = new GpuTable();
    table.setUnits([
      { uuid: 'x', cardUuid: 'x', notGiven: undefined },
      { uuid: 'y', cardUuid: 'y', notGiven: 'divided' },
      { uuid: 'y1', cardUuid: 'y', notGiven: undefined },
    ]);
    expect(table.capacity).toBe(2);
    table.quarantine('y', 'Xid 79');
    expect(table.reserve(A, ['y1'])).toBe('GPU y1 is quarantined: Xid 79');
    expect(table.reserve(A, ['y'])).toContain('divided into MIG instances');
    expect(table.capacity).toBe(1);
    expect(table.reserve(A, ['x'])).toBeUndefined();
    table.lift('y');
    expect(table.reserve(A, ['y1'])).toBeUndefined();
  });

  test('that the agent does not have or does not give is refused', () => {
    const table = new GpuTable();
    table.setUnits([{ uuid: 'x', cardUuid: 'x', notGiven: 'unmanaged' }]);
    expect(table.reserve(A, ['x'])).toBe('GPU x is left out by HARRIER_AGENT_GPUS');
    expect(table.reserve(A, ['q'])).toBe('this agent has no GPU q');
    expect(table.capacity).toBe(0);
  });

  test('of an attempt of a former agent is known before the cards are', () => {
    const table = new GpuTable();
    table.adopt(A, ['x']);
    table.setUnits([{ uuid: 'x', cardUuid: 'x', notGiven: undefined }]);
    expect(table.reserve(B, ['x'])).toContain('in use by attempt 1 of execution a');
  });
});

test('whatever happens in whatever order, a card has one holder, and is given again only when it was checked', () => {
  const cards = ['x', 'y', 'z'];
  const steps = fc.array(
    fc.record({
      what: fc.constantFrom('reserve', 'release', 'giveBack', 'checked', 'quarantine', 'lift'),
      who: fc.integer({ min: 0, max: 4 }),
      cards: fc.uniqueArray(fc.constantFrom(...cards), { minLength: 1 }),
    }),
    { maxLength: 60 },
  );
  fc.assert(
    fc.property(steps, (all) => {
      const table = tableOf(...cards);
      const held = new Map<string, number>();
      for (const { what, who, cards: chosen } of all) {
        const key = { executionId: String(who), attempt: 1 };
        const own = cards.filter((card) => held.get(card) === who);
        if (what === 'reserve' && table.reserve(key, chosen) === undefined) {
          for (const card of chosen) {
            expect([undefined, who]).toContain(held.get(card));
            held.set(card, who);
          }
        } else if (what === 'release') table.release(key);
        else if (what === 'giveBack') {
          table.giveBack(key);
          for (const card of own) held.delete(card);
        } else if (what === 'checked') {
          for (const card of chosen.filter((one) => table.stateOf(one) === 'checking')) {
            table.checked(card);
            held.delete(card);
          }
        } else if (what === 'quarantine') table.quarantine(chosen[0] ?? '', 'x');
        else if (what === 'lift') table.lift(chosen[0] ?? '');
        for (const card of cards) expect(table.holderOf(card)?.executionId).toBe(held.get(card)?.toString());
      }
    }),
  );
});
