import { expect, test, vi } from 'vitest';
import { EvaluationGate } from './evaluation-gate.ts';

function spend(ms: number): void {
  const endMs = performance.now() + ms;
  while (performance.now() < endMs);
}

test('the event loop has its turns between evaluations that take long', async () => {
  const gate = new EvaluationGate();
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  await Promise.all(
    Array.from({ length: 5 }, (_, tenant) => gate.run(`tenant-${tenant}`, async () => () => spend(20))),
  );
  clearInterval(timer);
  expect(turns).toBeGreaterThanOrEqual(3);
});

test('a tenant whose expressions take long waits, the others do not', async () => {
  const gate = new EvaluationGate();
  const order: string[] = [];
  const evaluate = (tenant: string, name: string, ms: number) =>
    gate.run(tenant, async () => () => {
      spend(ms);
      order.push(name);
    });
  await Promise.all([evaluate('slow', 'slow 1', 30), evaluate('slow', 'slow 2', 0), evaluate('other', 'other', 0)]);
  expect(order.at(-1)).toBe('slow 2');
  expect(order).toContain('other');
});

test('what is thrown comes out', async () => {
  const gate = new EvaluationGate();
  const no = () => {
    throw new Error('no');
  };
  await expect(gate.run('a', async () => no)).rejects.toThrow('no');
  await expect(gate.run('a', async () => no())).rejects.toThrow('no');
  expect(await gate.run('a', async () => () => 'yes')).toBe('yes');
});

test('values are read for two evaluations of a tenant at once, and for eight of all', async () => {
  const gate = new EvaluationGate();
  const reading: string[] = [];
  let most = 0;
  let mostOfOne = 0;
  const end = Promise.withResolvers<void>();
  const evaluate = (tenant: string) =>
    gate.run(tenant, async () => {
      reading.push(tenant);
      most = Math.max(most, reading.length);
      mostOfOne = Math.max(mostOfOne, reading.filter((other) => other === tenant).length);
      await end.promise;
      reading.splice(reading.indexOf(tenant), 1);
      return () => tenant;
    });
  const tenants = Array.from({ length: 30 }, (_, i) => `tenant-${i % 6}`);
  const all = tenants.map((tenant) => evaluate(tenant));
  await vi.waitFor(() => expect(reading).toHaveLength(8));
  end.resolve();
  expect(await Promise.all(all)).toEqual(tenants);
  expect([most, mostOfOne]).toEqual([8, 2]);
});

test('tenants whose pause is over are forgotten, the others are not', async () => {
  const gate = new EvaluationGate();
  const order: string[] = [];
  for (let i = 0; i < 999; i++) await gate.run(`tenant-${i}`, async () => () => spend(1));
  // Long enough for its pause to go on whatever this process has to wait for.
  await gate.run('slow', async () => () => spend(500));
  // As many are remembered now as may be: the next one makes room.
  await gate.run('another', async () => () => spend(1));
  await Promise.all(
    ['slow', 'new'].map((tenant) =>
      gate.run(tenant, async () => () => {
        spend(tenant === 'new' ? 1 : 0);
        order.push(tenant);
      }),
    ),
  );
  expect(order).toEqual(['new', 'slow']);
});
