// biome-ignore-all lint/suspicious/noTemplateCurlyInString: that is what templates look like
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { expect, test, vi } from 'vitest';
import { InMemoryRun } from './test-support/in-memory.ts';

const run = { module: 'm' };

test('an execution that was accepted is followed after a restart, although it could not be asked for any more', async () => {
  const end = Promise.withResolvers<void>();
  const calls: string[] = [];
  const made = new InMemoryRun(
    {
      variables: { d: 5 },
      nodes: [
        // Its module is deleted.
        { id: 'a', run, set_variables: { seen: 'output' } },
        // Its input has no value any more.
        { id: 'b', run, input: { share: '${100 / variables.d}' } },
        { id: 'turns', signal: {}, set_variables: { d: '0' } },
      ],
      output: { a: '${variables.seen}', b: '${nodes.b.output}' },
    },
    {
      work: (input, path) => {
        calls.push(path);
        return path === 'b' ? (input as { share: number }).share : 'done';
      },
      running: () => end.promise,
      refuses: (path, accepted) => path === 'a' && accepted,
    },
  );
  await vi.waitFor(() => expect(calls.toSorted()).toEqual(['a', 'b']));
  made.post({ type: 'signalled', path: 'turns', payload: { json: '{}' } });
  await vi.waitFor(() => expect(made.rows.get('')?.instance).toMatchObject({ variables: { d: 0 } }));
  made.restart();
  end.resolve();
  await made.end();
  expect(made.instance('').error?.message).toBeUndefined();
  expect(made.outputOf('')).toEqual({ a: 'done', b: 20 });
  expect(calls.toSorted()).toEqual(['a', 'b']);
});

test('one that is to be stopped is stopped after a restart, although it could not be asked for any more', async () => {
  const end = Promise.withResolvers<void>();
  const cancelled: string[] = [];
  const made = new InMemoryRun(
    { nodes: [{ id: 'a', run }] },
    {
      running: () => end.promise,
      refuses: (_, accepted) => accepted,
      cancels: (path) => {
        cancelled.push(path);
        end.resolve();
      },
    },
  );
  await vi.waitFor(() => expect(made.inputs.has('a')).toBe(true));
  made.restart();
  made.post({ type: 'cancel', error: { code: Code.CANCELLED, message: 'enough' } });
  await made.end();
  expect(made.instance('').state).toBe('CANCELLED');
  expect(cancelled).toEqual(['a']);
});
