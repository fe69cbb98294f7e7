// How nodes and runs end: by failures, by time, by what people say.
import { Code as ConnectCode } from '@connectrpc/connect';
import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { type Execution, Execution_State as ExecutionState } from '@harrier/shared/gen/execution';
import { describe, expect, test } from 'vitest';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';
import { ended, getRun, python, startRun, statesOf, untilNode, workflow } from '../support/workflows.ts';

const stack = await startStack();
const { clients } = stack;
const run = async (...given: Parameters<typeof startRun> extends [unknown, ...infer Rest] ? Rest : never) => {
  return await ended(clients, await startRun(clients, ...given));
};
const output = async (id: string): Promise<unknown> => JSON.parse((await getRun(clients, id)).outputJson);

/** Registers a version of a module by the body of its handler. */
async function register(name: string, version: string, body: string): Promise<void> {
  await clients.modules.createModule({ module: { name, version, code: `def handler(input):\n    ${body}\n` } });
}

/** Oldest first. */
async function executionsOf(runId: string): Promise<Execution[]> {
  const { executions } = await clients.executions.listExecutions({ labelSelector: `workflow-run=${runId}` });
  return executions.toReversed();
}

/** What the log of an ended run says about a node. */
async function logOf(id: string, node: string): Promise<string[]> {
  const lines: string[] = [];
  for await (const { event } of clients.workflows.watchWorkflowRun({ id })) {
    if (event.case === 'log' && event.value.path === node) lines.push(event.value.message);
  }
  return lines;
}

describe('failures', () => {
  test('end the run, and stop what runs', async () => {
    const ran = await run(
      workflow(
        {
          bad: python('raise ValueError("no")'),
          long: python('import time; time.sleep(600)\nreturn {}'),
          next: python('return {}'),
        },
        ['bad -> next'],
      ),
      {},
    );
    expect(statesOf(ran)).toEqual({ '': 'FAILED', bad: 'FAILED', long: 'CANCELLED', next: 'CANCELLED' });
    expect(ran.error).toMatchObject({ code: Code.HANDLER_ERROR, message: 'bad: ValueError: no' });
  });

  test('are tried again after a wait until one try succeeds; each is an execution of its own', async () => {
    await register('unsteady', '1.0.0', 'raise ValueError("not yet")');
    const retry = { max_attempts: 100, initial_backoff: '0.5s', backoff_multiplier: 1 };
    const nodes = { a: { run: { module: 'unsteady' }, retry }, b: python('return input') };
    const id = await startRun(clients, workflow(nodes, ['a -> b']));
    await until('the node to wait for its next try', async () => {
      return (await getRun(clients, id)).nodes.some(({ waitingReason }) => waitingReason === 'for its next try');
    });
    await register('unsteady', '1.0.1', 'return {"n": 1}');
    const ran = await ended(clients, id);
    expect(statesOf(ran)).toEqual({ '': 'SUCCEEDED', a: 'SUCCEEDED', b: 'SUCCEEDED' });
    expect(await output(id)).toEqual({ n: 1 });
    const tries = (await executionsOf(id)).filter(({ module }) => module === 'unsteady');
    const failed = tries.slice(0, -1);
    expect(failed).not.toEqual([]);
    for (const execution of failed) expect(execution).toMatchObject({ version: '1.0.0', state: ExecutionState.FAILED });
    expect(tries.at(-1)).toMatchObject({ version: '1.0.1', state: ExecutionState.SUCCEEDED });
    const a = ran.nodes.find(({ path }) => path === 'a');
    expect(a).toMatchObject({ tries: tries.length, executionId: tries.at(-1)?.id });
    expect(a?.error).toBeUndefined();
    expect(await logOf(id, 'a')).toEqual([
      'started',
      ...failed.flatMap((_, i) => [
        expect.stringMatching(new RegExp(`^try ${i + 1} failed \\(ValueError: not yet\\); next in \\d+ ms$`)),
        `try ${i + 2} started`,
      ]),
      'succeeded',
    ]);
  });

  test('are final when the tries are used up', async () => {
    const retry = { max_attempts: 3, initial_backoff: '0.01s' };
    const nodes = { a: python('raise ValueError("no")', { retry }), b: python('return {}') };
    const ran = await run(workflow(nodes, ['a -> b']), {});
    expect(statesOf(ran)).toEqual({ '': 'FAILED', a: 'FAILED', b: 'CANCELLED' });
    expect(ran.error).toMatchObject({ code: Code.HANDLER_ERROR, message: 'a: ValueError: no' });
    expect(ran.nodes.find(({ path }) => path === 'a')?.tries).toBe(3);
    expect(await executionsOf(ran.id)).toHaveLength(3);
    expect(await logOf(ran.id, 'a')).toEqual([
      'started',
      expect.stringMatching(/^try 1 failed .* next in \d+ ms$/),
      'try 2 started',
      expect.stringMatching(/^try 2 failed .* next in \d+ ms$/),
      'try 3 started',
      'failed: ValueError: no',
    ]);
  });

  test('can be tolerated; what cleans up runs all the same', async () => {
    const nodes = {
      a: python('raise ValueError("no")', { on_failure: 'CONTINUE' }),
      b: python('return {}'),
      bad: python('raise ValueError("end")'),
      clean: python('return {"clean": True}', { join: 'ALL_DONE' }),
    };
    const ran = await run(workflow(nodes, ['a -> b', 'b -> bad', 'bad -> clean']), {});
    expect(statesOf(ran)).toEqual({ '': 'FAILED', a: 'FAILED', b: 'SUCCEEDED', bad: 'FAILED', clean: 'SUCCEEDED' });
  });

  test('are no end: a run can be started again from them', async () => {
    await register('fixable', '1.0.0', 'raise ValueError("broken")');
    const nodes = { a: python('return {"n": 1}'), b: { run: { module: 'fixable' } }, c: python('return input') };
    const ran = await run(workflow(nodes, ['a -> b', 'b -> c']), {});
    expect(statesOf(ran)).toMatchObject({ '': 'FAILED', a: 'SUCCEEDED', b: 'FAILED' });
    await register('fixable', '1.0.1', 'return {"n": input["n"] + 1}');
    await clients.workflows.retryWorkflowRun({ id: ran.id });
    await untilNode(clients, ran.id, 'c', 'SUCCEEDED');
    const again = await ended(clients, ran.id);
    expect(statesOf(again)).toEqual({ '': 'SUCCEEDED', a: 'SUCCEEDED', b: 'SUCCEEDED', c: 'SUCCEEDED' });
    expect(again.nodes.map(({ path, tries }) => [path, tries])).toEqual([
      ['a', 1],
      ['b', 2],
      ['c', 1],
    ]);
    expect(await output(ran.id)).toEqual({ n: 2 });
    await expect(clients.workflows.retryWorkflowRun({ id: ran.id })).rejects.toMatchObject({
      code: ConnectCode.FailedPrecondition,
    });
  });
});

describe('time', () => {
  test('ends a node, and a run', async () => {
    const sleeper = python('import time; time.sleep(600)\nreturn {}', { timeout: '0.5s' });
    expect(statesOf(await run(workflow({ a: sleeper }, []), {}))).toEqual({ '': 'FAILED', a: 'TIMED_OUT' });
    const waits = workflow({ s: { signal: {} }, a: python('import time; time.sleep(600)\nreturn {}') }, [], {
      timeout: '0.5s',
    });
    expect(statesOf(await run(waits, {}))).toEqual({ '': 'TIMED_OUT', s: 'CANCELLED', a: 'CANCELLED' });
  });

  test('can be waited for', async () => {
    const ran = await run(
      workflow(
        {
          w: { wait: { duration: '0.3s' } },
          u: { wait: { time: 'timestamp(run.create_time) + duration("0.2s")' } },
          a: python('return {}'),
        },
        ['w -> a', 'u -> a'],
      ),
      {},
    );
    const [w] = ran.nodes.filter(({ path }) => path === 'w');
    expect(statesOf(ran)).toMatchObject({ '': 'SUCCEEDED', w: 'SUCCEEDED', u: 'SUCCEEDED' });
    expect(Number(w?.endTime?.seconds ?? 0n) * 1e3 + (w?.endTime?.nanos ?? 0) / 1e6).toBeGreaterThanOrEqual(
      Number(w?.startTime?.seconds ?? 0n) * 1e3 + (w?.startTime?.nanos ?? 0) / 1e6 + 300,
    );
  });
});

describe('signals', () => {
  const approval = () =>
    workflow(
      {
        ask: { signal: { schema: { type: 'object', required: ['approved'] } }, timeout: '600s' },
        decide: { condition: {} },
        deploy: python('return {"by": input["by"]}'),
        refuse: python('return {"refused": True}'),
      },
      ['ask -> decide', 'decide -> deploy ? nodes.ask.output.approved', 'decide -> refuse ? default'],
    );
  const signal = (id: string, payload: string, path = 'ask') =>
    clients.workflows.signalWorkflowRun({ id, path, payloadJson: payload });

  test('let a run go on with what they bring', async () => {
    const id = await startRun(clients, {
      ...approval(),
      edges: [{ from: 'ask', to: 'deploy' }],
      nodes: (approval().nodes as { id: string }[]).filter(
        ({ id: node }) => node === 'ask' || node === 'deploy',
      ) as never,
    });
    await untilNode(clients, id, 'ask', 'WAITING');
    await expect(signal(id, '{}')).rejects.toMatchObject({ code: ConnectCode.InvalidArgument });
    await expect(signal(id, '{"approved": true}', 'deploy')).rejects.toMatchObject({
      code: ConnectCode.FailedPrecondition,
    });
    await signal(id, '{"approved": true, "by": "ada"}');
    expect(statesOf(await ended(clients, id))).toMatchObject({ '': 'SUCCEEDED', deploy: 'SUCCEEDED' });
    expect(await output(id)).toEqual({ by: 'ada' });
    await expect(signal(id, '{"approved": true}')).rejects.toMatchObject({ code: ConnectCode.FailedPrecondition });
  });

  test('can refuse', async () => {
    const id = await startRun(clients, approval());
    await untilNode(clients, id, 'ask', 'WAITING');
    await signal(id, '{"approved": false}');
    expect(statesOf(await ended(clients, id))).toMatchObject({
      '': 'SUCCEEDED',
      deploy: 'SKIPPED',
      refuse: 'SUCCEEDED',
    });
  });

  test('that do not come in time fail the run, or let it go on, as `on_timeout` says', async () => {
    const unanswered = async (policies: Record<string, string>) => {
      const nodes = {
        ask: { signal: {}, timeout: '0.3s', ...policies },
        escalate: python('return {"escalated": True}'),
        deploy: python('return {}'),
      };
      const edges = ['ask -> escalate ? nodes.ask.state == "TIMED_OUT"', 'ask -> deploy ? default'];
      return await run(workflow(nodes, edges), {});
    };
    const failed = await unanswered({ on_timeout: 'FAIL', on_failure: 'CONTINUE' });
    expect(statesOf(failed)).toEqual({ '': 'FAILED', ask: 'TIMED_OUT', escalate: 'CANCELLED', deploy: 'CANCELLED' });
    expect(failed.error).toMatchObject({ code: Code.TIMEOUT, message: 'ask: it took longer than its timeout' });
    const tolerated = await unanswered({ on_timeout: 'CONTINUE', on_failure: 'FAIL' });
    expect(statesOf(tolerated)).toEqual({
      '': 'SUCCEEDED',
      ask: 'TIMED_OUT',
      escalate: 'SUCCEEDED',
      deploy: 'SKIPPED',
    });
    expect(await output(tolerated.id)).toEqual({ escalated: true });
    for (const { id } of [failed, tolerated])
      await expect(signal(id, '{}')).rejects.toMatchObject({ code: ConnectCode.FailedPrecondition });
  });
});

describe('cancelling', () => {
  test('stops what runs, what waits and what is pending; an ended run refuses it', async () => {
    const nodes = { a: python('import time; time.sleep(600)\nreturn {}'), s: { signal: {} }, b: python('return {}') };
    const id = await startRun(clients, workflow(nodes, ['a -> b']));
    await untilNode(clients, id, 'a', 'RUNNING');
    await clients.workflows.cancelWorkflowRun({ id, reason: 'enough' });
    const ran = await ended(clients, id);
    expect(statesOf(ran)).toEqual({ '': 'CANCELLED', a: 'CANCELLED', s: 'CANCELLED', b: 'CANCELLED' });
    expect(ran.error?.message).toBe('enough');
    expect(await executionsOf(id)).toMatchObject([{ state: ExecutionState.CANCELLED }]);
    await expect(clients.workflows.cancelWorkflowRun({ id })).rejects.toMatchObject({
      code: ConnectCode.FailedPrecondition,
    });
  });
});
