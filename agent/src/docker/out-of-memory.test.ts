import { expect, test } from 'vitest';
import { standInEngine } from '../test-support/stand-in-engine.ts';
import { NO_USAGE } from './container-groups.ts';
import { ContainerRun } from './container-run.ts';
import { wasOutOfMemory } from './out-of-memory.ts';

const LIMIT_BYTES = 128 << 20;

/** An ended container of which the engine says that its memory was used up when it is asked for the n-th time, or never. */
async function killed(exitCode: number, toldFrom = Number.POSITIVE_INFINITY) {
  let asked = 0;
  const { engine } = await standInEngine(({ url }, response) => {
    const times = { StartedAt: '2026-01-01T00:00:00Z', FinishedAt: '2026-01-01T00:00:01Z' };
    const State = { Status: 'exited', ExitCode: exitCode, OOMKilled: asked >= toldFrom, ...times };
    if (url?.includes('/json')) asked++;
    const body = url?.includes('/wait') ? { StatusCode: exitCode } : { Id: 'c', State };
    response.setHeader('content-type', 'application/json').end(JSON.stringify(body));
  });
  const run = new ContainerRun(engine, 'c');
  return { run, exit: await run.exit() };
}

test('the engine says so, at once or only after the end', async () => {
  const atOnce = await killed(1, 0);
  expect(await wasOutOfMemory(atOnce.run, atOnce.exit, NO_USAGE, LIMIT_BYTES)).toBe(true);
  const late = await killed(137, 3);
  expect(late.exit.oomKilled).toBe(false);
  expect(await wasOutOfMemory(late.run, late.exit, NO_USAGE, LIMIT_BYTES)).toBe(true);
});

test('the engine never says so: the groups have counted it, or the peak is at the limit', async () => {
  const { run, exit } = await killed(137);
  expect(await wasOutOfMemory(run, exit, { ...NO_USAGE, oomKills: 1 }, LIMIT_BYTES)).toBe(true);
  expect(await wasOutOfMemory(run, exit, { ...NO_USAGE, maxMemoryBytes: LIMIT_BYTES - 4096 }, LIMIT_BYTES)).toBe(true);
});

test('a container that was killed far below its limit, or ended by itself at its limit, was not out of memory', async () => {
  const shot = await killed(137);
  expect(await wasOutOfMemory(shot.run, shot.exit, { ...NO_USAGE, maxMemoryBytes: 1 << 20 }, LIMIT_BYTES)).toBe(false);
  const own = await killed(3);
  expect(await wasOutOfMemory(own.run, own.exit, { ...NO_USAGE, maxMemoryBytes: LIMIT_BYTES }, LIMIT_BYTES)).toBe(
    false,
  );
});
