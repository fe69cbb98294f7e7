import type { JsonValue } from '@bufbuild/protobuf';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { expect, onTestFinished, test, vi } from 'vitest';
import {
  type Executions,
  type Outcome,
  type RefusedError,
  RunActor,
  type RunActorOptions,
  type RunOptions,
} from './run-actor.ts';
import { newRun, ROOT } from './run-state.ts';
import { RunValues } from './run-values.ts';
import { graphOf } from './test-support/simulate.ts';

const run = { module: 'm' };

function actorOf(
  nodes: JsonValue[],
  executions: Partial<Executions>,
  more: Partial<RunActorOptions> = {},
  { edges = [], timeoutMs }: { edges?: JsonValue[]; timeoutMs?: number } = {},
) {
  const graph = graphOf({ name: 'w', version: '1.0.0', nodes, edges });
  const made = newRun({ id: 'r', graph, maxParallel: 100, timeoutMs });
  const values = new RunValues(made, {
    input: {},
    about: {},
    read: async () => '{}',
    evaluate: async (prepare) => (await prepare())(),
  });
  const onIdle = vi.fn();
  const actor = new RunActor({
    ...{ run: made, tenantId: 't', values, labels: {}, onIdle, onFailed: () => undefined },
    nowMs: Date.now,
    executions: { run: async () => await new Promise(() => undefined), cancel: async () => undefined, ...executions },
    checkInput: () => undefined,
    store: async () => true,
    onStored: () => undefined,
    onLost: () => undefined,
    ...more,
  });
  onTestFinished(() => actor.stop());
  actor.start();
  const state = (path = ROOT) => made.instances.get(path)?.state;
  return { actor, onIdle, state, made };
}

const ended = (state: Outcome['state']): Outcome => ({ executionId: 'e', state, outputJson: '{}', error: undefined });

test('what fails by chance is done again, and the run stays in memory meanwhile', async () => {
  let calls = 0;
  const before: boolean[] = [];
  const { onIdle, state } = actorOf([{ id: 'a', run }], {
    run: async (_tenant, asked) => {
      before.push(asked.before);
      if (calls++ === 0) throw new Error('the database is away');
      return ended('SUCCEEDED');
    },
  });
  await vi.waitFor(() => expect(calls).toBe(1));
  expect(onIdle).not.toHaveBeenCalled();
  await vi.waitFor(() => expect(state()).toBe('SUCCEEDED'));
  // It may have been away only when it was to answer.
  expect(before).toEqual([false, true]);
});

test('an execution that waits for room is given up when the run is cancelled', async () => {
  let options: RunOptions | undefined;
  const { actor, state } = actorOf([{ id: 'a', run }], {
    run: async (_tenant, _request, given) => {
      options = given;
      return await new Promise((_, reject) => {
        given.unwanted.addEventListener('abort', () => reject(given.unwanted.reason as RefusedError));
      });
    },
  });
  await vi.waitFor(() => expect(options).toBeDefined());
  actor.post({ type: 'cancel', error: { code: Code.CANCELLED, message: 'enough' } });
  await vi.waitFor(() => expect(state()).toBe('CANCELLED'));
  expect(state('a')).toBe('CANCELLED');
});

test('one that was accepted is cancelled, and its end waited for', async () => {
  const end = Promise.withResolvers<Outcome>();
  const cancel = vi.fn(async () => end.resolve(ended('CANCELLED')));
  const { actor, state } = actorOf([{ id: 'a', run }], {
    run: async (_tenant, _request, { onAccepted }) => {
      onAccepted('e');
      return await end.promise;
    },
    cancel,
  });
  await vi.waitFor(() => expect(state('a')).toBe('RUNNING'));
  actor.post({ type: 'cancel', error: { code: Code.CANCELLED, message: 'enough' } });
  await vi.waitFor(() => expect(state()).toBe('CANCELLED'));
  expect(cancel).toHaveBeenCalledTimes(1);
});

test('a word that is read twice is taken into account once', async () => {
  const heard: number[][] = [];
  const { actor, state } = actorOf(
    [{ id: 's', signal: {} }],
    {},
    {
      store: async (step) => {
        heard.push([...step.heard]);
        return true;
      },
    },
  );
  await vi.waitFor(() => expect(state('s')).toBe('WAITING'));
  actor.post({ type: 'signalled', path: 's', payload: { json: '{}' } }, 7);
  actor.post({ type: 'signalled', path: 's', payload: { json: '{}' } }, 7);
  await vi.waitFor(() => expect(state()).toBe('SUCCEEDED'));
  expect(heard.flat()).toEqual([7]);
});

test('a word that comes too late is taken out, with a line in the log', async () => {
  const told: [number[], string[]][] = [];
  const { actor, state } = actorOf(
    [
      { id: 's', signal: {} },
      { id: 'a', run },
    ],
    {},
    {
      store: async ({ heard, log }) => {
        const warnings = log.filter(({ level }) => level === 'WARNING');
        told.push([[...heard], warnings.map(({ path }) => path)]);
        return true;
      },
    },
  );
  await vi.waitFor(() => expect(state('s')).toBe('WAITING'));
  actor.post({ type: 'signalled', path: 's', payload: { json: '{}' } }, 7);
  await vi.waitFor(() => expect(state('s')).toBe('SUCCEEDED'));
  actor.post({ type: 'signalled', path: 's', payload: { json: '{}' } }, 8);
  await vi.waitFor(() => expect(told).toContainEqual([[8], ['s']]));
});

test('a run that cleans up after a failure wakes at its timeout, which ends it, and at what it waits for', async () => {
  const cleaning = async (timeoutMs: number | undefined) => {
    const { onIdle, state } = actorOf(
      [
        { id: 'a', run },
        { id: 'clean', wait: { duration: '3600s' }, join: 'ALL_DONE' },
      ],
      { run: async () => ended('FAILED') },
      { nowMs: () => 0 },
      { edges: [{ from: 'a', to: 'clean' }], ...(timeoutMs === undefined ? {} : { timeoutMs }) },
    );
    await vi.waitFor(() => expect(state('clean')).toBe('WAITING'));
    return onIdle;
  };
  const onIdle = await cleaning(60_000);
  await vi.waitFor(() => expect(onIdle).toHaveBeenLastCalledWith(60_000));
  const unbounded = await cleaning(undefined);
  await vi.waitFor(() => expect(unbounded).toHaveBeenLastCalledWith(3_600_000));
});
