import { expect, onTestFinished, test, vi } from 'vitest';
import { standInEngine } from '../test-support/stand-in-engine.ts';
import { ContainerMeter } from './container-meter.ts';
import { ContainerRun } from './container-run.ts';

/** Measures a container that this host shows no control groups of. */
async function metered(stats: () => object | undefined) {
  const { engine } = await standInEngine(({ url }, response) => {
    const body = url?.includes('/stats')
      ? stats()
      : { Id: 'not-on-this-host', State: { Status: 'running', Running: true } };
    response.writeHead(body === undefined ? 404 : 200, { 'content-type': 'application/json' });
    response.end(JSON.stringify(body ?? { message: 'no such container' }));
  });
  const run = new ContainerRun(engine, 'c');
  await run.state();
  const meter = new ContainerMeter(run);
  onTestFinished(() => meter.end());
  meter.begin();
  return meter;
}

test('where control groups cannot be seen, the engine says what is used', async () => {
  const memory = { usage: 4096, limit: 8192 };
  const meter = await metered(() => ({ cpu_stats: { cpu_usage: { total_usage: 2_500_000 } }, memory_stats: memory }));
  await vi.waitFor(() => expect(meter.usage).toEqual({ cpuMs: 2.5, maxMemoryBytes: 4096, oomKills: 0 }));
});

test('of a container that is gone, nothing is known', async () => {
  const asked = Promise.withResolvers<void>();
  const meter = await metered(() => asked.resolve() as undefined);
  await asked.promise;
  expect(meter.usage).toEqual({ cpuMs: 0, maxMemoryBytes: 0, oomKills: 0 });
});
