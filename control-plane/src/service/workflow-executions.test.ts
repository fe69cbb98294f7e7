import { create } from '@bufbuild/protobuf';
import { HarrierError } from '@harrier/shared';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { CreateExecutionRequestSchema, ExecutionSchema, Execution_State as State } from '@harrier/shared/gen/execution';
import { describe, expect, test, vi } from 'vitest';
import { ExpressionError } from '../workflow/expression.ts';
import { type Asked, RefusedError } from '../workflow/run-actor.ts';
import { workflowExecutions } from './workflow-executions.ts';

type Accept = Parameters<typeof workflowExecutions>[0]['accept'];

const made = create(CreateExecutionRequestSchema, { idempotencyKey: 'key' });

/** Follows an execution, which is there already, or not. */
function followed(accept: Accept, { there, asked = {} }: { there: boolean; asked?: Partial<Asked> }) {
  const onAccepted = vi.fn();
  const unwanted = new AbortController();
  const ended = create(ExecutionSchema, { id: 'e', state: State.SUCCEEDED, outputJson: '{}' });
  const executions = workflowExecutions(
    { accept, finished: async () => ended, cancel: async () => ended },
    async (tenant, key) => (there && tenant === 't' && key === 'key' ? 'e' : undefined),
  );
  const outcome = executions.run(
    't',
    { key: 'key', before: false, request: async () => made, ...asked },
    { onAccepted, signal: new AbortController().signal, unwanted: unwanted.signal },
  );
  return { outcome, onAccepted, unwanted };
}

const refuse: Accept = () => Promise.reject(new HarrierError('not_found', 'its module is gone'));
const without = () => Promise.reject(new ExpressionError('divide by zero'));
const notWanted = new RefusedError({ code: Code.CANCELLED, message: 'not wanted' });
const tooMany = Object.assign(new Error('too many'), { code: '54000', detail: 'of something' });

describe('an execution that was accepted before', () => {
  test('is followed without being asked for', async () => {
    const accept = vi.fn(refuse);
    const request = vi.fn(without);
    const { outcome, onAccepted } = followed(accept, { there: true, asked: { before: true, request } });
    await expect(outcome).resolves.toMatchObject({ executionId: 'e', state: 'SUCCEEDED' });
    expect(onAccepted).toHaveBeenCalledWith('e');
    expect([accept.mock.calls, request.mock.calls]).toEqual([[], []]);
  });

  test.each<[string, Accept, Partial<Asked>]>([
    ['it is refused now', refuse, {}],
    ['the database refuses it now', () => Promise.reject(tooMany), {}],
    ['its input has no value now', refuse, { request: without }],
  ])('by a call whose answer was lost is followed, although %s', async (_, accept, asked) => {
    const { outcome } = followed(accept, { there: true, asked });
    await expect(outcome).resolves.toMatchObject({ executionId: 'e' });
  });

  test('is told of, to be stopped, although it is not wanted any more', async () => {
    const waiting: Accept = () => Promise.reject(new HarrierError('resource_exhausted', 'no room'));
    const { outcome, onAccepted, unwanted } = followed(waiting, { there: true });
    unwanted.abort(notWanted);
    await outcome;
    expect(onAccepted).toHaveBeenCalledWith('e');
  });
});

describe('one that was not', () => {
  test.each<[string, Accept, Partial<Asked>]>([
    ['its module is gone', refuse, {}],
    ['too many (of something)', () => Promise.reject(tooMany), {}],
    ['divide by zero', refuse, { request: without }],
  ])('ends its node when it is refused for good: %s', async (message, accept, asked) => {
    await expect(followed(accept, { there: false, asked }).outcome).rejects.toThrow(message);
    await expect(followed(accept, { there: false, asked: { ...asked, before: true } }).outcome).rejects.toThrow(
      message,
    );
  });

  test('is asked for again when there was no room for it, with the same request', async () => {
    const accept = vi.fn<Accept>(async () => ({ id: 'e', tracked: undefined }));
    accept.mockRejectedValueOnce(new HarrierError('resource_exhausted', 'no room', { retryAfterMs: 1 }));
    const request = vi.fn(async () => made);
    await followed(accept, { there: false, asked: { request } }).outcome;
    expect([accept.mock.calls.length, request.mock.calls.length]).toEqual([2, 1]);
  });

  test('is not asked for when it is not wanted any more', async () => {
    const waiting = vi.fn<Accept>(() => Promise.reject(new HarrierError('resource_exhausted', 'no room')));
    const { outcome, unwanted } = followed(waiting, { there: false });
    await vi.waitFor(() => expect(waiting).toHaveBeenCalled());
    unwanted.abort(notWanted);
    await expect(outcome).rejects.toThrow('not wanted');
    expect(waiting).toHaveBeenCalledTimes(1);
  });

  test('is not asked for when it was not wanted any more before its request was made', async () => {
    const accept = vi.fn<Accept>(async () => ({ id: 'e', tracked: undefined }));
    const { outcome, unwanted } = followed(accept, { there: false });
    unwanted.abort(notWanted);
    await expect(outcome).rejects.toThrow('not wanted');
    expect(accept).not.toHaveBeenCalled();
  });
});
