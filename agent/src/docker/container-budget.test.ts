import { expect, test } from 'vitest';
import { ContainerBudget } from './container-budget.ts';

const never = new AbortController().signal;

test('places are taken in order, and one that is given back goes to who waits', async () => {
  const budget = new ContainerBudget(1);
  const first = await budget.take(never);
  const order: string[] = [];
  const second = budget.take(never).then((release) => {
    order.push('second');
    return release;
  });
  const third = budget.take(never).then((release) => {
    order.push('third');
    return release;
  });
  first();
  first();
  (await second)();
  (await third)();
  expect(order).toEqual(['second', 'third']);
  expect(budget.used).toBe(0);
});

test('who gives up waiting takes no place', async () => {
  const budget = new ContainerBudget(1);
  const release = await budget.take(never);
  const abort = new AbortController();
  const waiting = budget.take(abort.signal);
  abort.abort(new Error('enough'));
  await expect(waiting).rejects.toThrow('enough');
  release();
  expect(budget.used).toBe(0);
  (await budget.take(never))();
});

test('a full budget asks for room', async () => {
  const budget = new ContainerBudget(1);
  const idle = await budget.take(never);
  budget.onFull(() => {
    idle();
    return true;
  });
  (await budget.take(never))();
  expect(budget.used).toBe(0);
});

test('containers that run already count, also beyond the bound', async () => {
  const budget = new ContainerBudget(1);
  const places = [budget.adopt(), budget.adopt()];
  expect(budget.used).toBe(2);
  const waiting = budget.take(never);
  for (const release of places) release();
  (await waiting)();
  expect(budget.used).toBe(0);
});
