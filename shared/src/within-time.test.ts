import { expect, test } from 'vitest';
import { OutOfTimeError, withinTime } from './within-time.ts';

/** The thread stands still, as when the processor is given to others. */
function stand(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60_000);
}

test('work that takes too long is given up', () => {
  const spin = () => {
    while (true);
  };
  expect(() => withinTime(20, spin)).toThrow(OutOfTimeError);
});

test('work that did not get the processor is begun again, and given up when it never gets it', () => {
  let begun = 0;
  const value = withinTime(20, () => {
    if (begun++ < 2) stand();
    return 'done';
  });
  expect([value, begun]).toEqual(['done', 3]);
  begun = 0;
  const never = () => {
    begun++;
    stand();
  };
  expect(() => withinTime(20, never)).toThrow('longer than 20 ms');
  expect(begun).toBe(5);
});

test('what work throws comes out', () => {
  const broken = () => {
    throw new TypeError('no');
  };
  expect(() => withinTime(1_000, broken)).toThrow(new TypeError('no'));
});
