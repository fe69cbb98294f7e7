import { expect, onTestFinished, test, vi } from 'vitest';
import { standInEngine } from '../test-support/stand-in-engine.ts';
import { type ContainerUsage, NO_USAGE } from './container-groups.ts';
import { ContainerMeter } from './container-meter.ts';
import { ContainerRun } from './container-run.ts';

/** Measures a container that this host shows no control groups of. */
async function metered(stats: () => object | undefined, before: ContainerUsage = NO_USAGE) {
  const { engine } = await standInEngine(({ url }, response) => {
    const body = url?.includes('/stats')
      ? stats()
      : { Id: 'not-on-this-host', State: { Status: 'running', Running: true } };
    response.writeHead(body === undefined ? 404 : 200, { 'content-type': 'application/json' });
    response.end(JSON.stringify(body ?? { message: 'no such container' }));
  });
  const run = new ContainerRun(engine, 'c');
  await run.state();
  const kept: ContainerUsage[] = [];
  const meter = new ContainerMeter(run, before, (usage) => kept.push(usage));
  onTestFinished(() => meter.end());
  meter.begin();
  return { meter, kept };
}

test('where control groups cannot be seen, the engine says what is used', async () => {
  const memory = { usage: 4096, limit: 8192 };
  const stats = { cpu_stats: { cpu_usage: { total_usage: 2_500_000 } }, memory_stats: memory };
  const { meter, kept } = await metered(() => stats);
  await vi.waitFor(() => expect(meter.usage).toEqual({ cpuMs: 2.5, maxMemoryBytes: 4096, oomKills: 0 }));
  expect(kept).toEqual([meter.usage]);
});

test('what a former agent has seen counts, whatever is seen later', async () => {
  const before = { cpuMs: 7, maxMemoryBytes: 1024, oomKills: 1 };
  const stats = { cpu_stats: { cpu_usage: { total_usage: 2_500_000 } }, memory_stats: { usage: 4096 } };
  const { meter, kept } = await metered(() => stats, before);
  expect(meter.usage).toEqual(before);
  await vi.waitFor(() => expect(kept).toEqual([{ cpuMs: 7, maxMemoryBytes: 4096, oomKills: 1 }]));
});

test('of a container that is gone, nothing is known', async () => {
  const asked = Promise.withResolvers<void>();
  const { meter, kept } = await metered(() => asked.resolve() as undefined);
  await asked.promise;
  expect(meter.usage).toEqual({ cpuMs: 0, maxMemoryBytes: 0, oomKills: 0 });
  expect(kept).toEqual([]);
});
