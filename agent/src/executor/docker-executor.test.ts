import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { type Assignment, AssignmentSchema } from '@harrier/shared/gen/link';
import { expect, onTestFinished, test } from 'vitest';
import { ContainerBudget } from '../docker/container-budget.ts';
import { ImagePolicy } from '../docker/image-policy.ts';
import { Images } from '../docker/images.ts';
import { silentLogger } from '../test-support/silent-logger.ts';
import { standInEngine } from '../test-support/stand-in-engine.ts';
import { tempDir } from '../test-support/temp-dir.ts';
import { DockerExecutor } from './docker-executor.ts';
import type { AttemptEnd, ExecutorEvents } from './executor.ts';

const UNPREPARED = { start: undefined, release: () => {} };

function assignment(executionId: string): Assignment {
  return create(AssignmentSchema, {
    ref: { executionId, attempt: 1 },
    tenant: 'acme',
    program: { case: 'image', value: { image: 'tool:1' } },
    limits: { memoryBytes: 1n, stdoutBytes: 1n, stderrBytes: 1n, outputBytes: 1n },
  });
}

/** An executor on an engine that answers nothing but that it is there. */
async function hung(places: number, dataDir = tempDir()) {
  const asked = Promise.withResolvers<void>();
  const { engine, end } = await standInEngine(({ url }) => {
    if (url?.startsWith('/images/')) asked.resolve();
  });
  const policy = new ImagePolicy(['*']);
  const images = new Images({ engine, policy, credentialsPath: undefined, logger: silentLogger() });
  const held = Promise.withResolvers<string[]>();
  const ends = new Map<string, PromiseWithResolvers<AttemptEnd>>();
  const ended = (id: string): PromiseWithResolvers<AttemptEnd> => {
    const found = ends.get(id) ?? Promise.withResolvers<AttemptEnd>();
    ends.set(id, found);
    return found;
  };
  const events: ExecutorEvents = {
    onStarted: () => {},
    onOutput: () => {},
    onProgress: () => {},
    onRecovered: (_, recovered) => held.resolve(recovered.map(({ executionId }) => executionId)),
    onLost: () => {},
    onFinished: ({ executionId }, attemptEnd) => ended(executionId).resolve(attemptEnd),
  };
  const budget = new ContainerBudget(places);
  const guard = { guard: () => {}, release: () => {} };
  const parts = { engine, images, budget, dataDir, guard };
  const executor = new DockerExecutor({ ...parts, runners: {}, events, logger: silentLogger() });
  executor.open();
  onTestFinished(() => executor.close());
  const start = (id: string): void => {
    expect(executor.start(assignment(id), UNPREPARED, new Uint8Array(0))).toBeUndefined();
  };
  return { executor, held: held.promise, asked: asked.promise, end, start, ended: (id: string) => ended(id).promise };
}

test('a call is cancelled while the engine hangs', async () => {
  const { executor, asked, start, ended } = await hung(1);
  start('a');
  await asked;
  executor.cancel({ executionId: 'a', attempt: 1 }, 'cancel', 1000);
  expect(await ended('a')).toMatchObject({ outcome: 'cancelled' });
});

test('calls that have not started end with the engine: those that wait for it, and those that wait for a place', async () => {
  const { asked, end, start, ended } = await hung(1);
  start('asks');
  start('waits');
  await asked;
  end();
  for (const id of ['asks', 'waits']) {
    expect(await ended(id)).toMatchObject({ outcome: 'failed', error: { code: Code.SUBMIT_FAILED } });
  }
});

test('what the disk does not take is refused, or is true as long as this agent lives', async () => {
  const dataDir = tempDir();
  const { executor, start, ended } = await hung(2, dataDir);
  const containers = join(dataDir, 'containers');
  start('waits');
  // Nothing can be written below a file.
  rmSync(containers, { recursive: true });
  writeFileSync(containers, '');
  expect(executor.start(assignment('refused'), UNPREPARED, new Uint8Array(0))).toMatchObject({
    error: { code: Code.SUBMIT_FAILED, message: expect.stringContaining('the agent cannot keep the attempt: ') },
    requeue: true,
  });
  executor.cancel({ executionId: 'waits', attempt: 1 }, 'cancel', 0);
  expect(await ended('waits')).toMatchObject({ outcome: 'cancelled' });
});

test('what a former agent left and nobody can read does not keep the agent from starting, nor the rest from going on', async () => {
  const dataDir = tempDir();
  const former = await hung(1, dataDir);
  for (const id of ['no-facts', 'no-end', 'whole']) former.start(id);
  await former.asked;
  former.executor.close();
  const file = (id: string, name: string) => join(dataDir, 'containers', `${id}.1`, name);
  writeFileSync(file('no-facts', 'facts.json'), '');
  writeFileSync(file('no-end', 'end.json'), '{"outcome":"succ');
  const { held } = await hung(1, dataDir);
  expect(await held).toEqual(['whole']);
  expect(readdirSync(join(dataDir, 'containers'))).toEqual(['whole.1']);
});
