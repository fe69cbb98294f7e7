import { describe, expect, test } from 'vitest';
import { GatherTime } from './gather-time.ts';

function after(...wayMs: number[]): number {
  const gather = new GatherTime();
  for (let round = 0; round < 200; round++) for (const ms of wayMs) gather.note(ms);
  return gather.ms;
}

describe('GatherTime', () => {
  test('is short before the first execution, and while they are quick', () => {
    expect(new GatherTime().ms).toBe(3);
    expect(after(2)).toBe(3);
  });

  test('grows with the time that executions spend on the way, up to a bound', () => {
    expect(after(40)).toBeCloseTo(5);
    expect(after(80)).toBeCloseTo(10);
    expect(after(60_000)).toBeCloseTo(16);
  });

  test('stays short when a few of them take long', () => {
    expect(after(60_000, ...Array<number>(19).fill(2))).toBe(3);
  });
});
