import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { create, execute, finished, get, storedLog } from '../support/executions.ts';
import { code, command, moduleCall } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { until } from '../support/wait.ts';

const stack = await startStack();
const { executions } = stack;

/** Fails until its third attempt. */
const FLAKY = `
def handler(input, context):
    print("attempt", context.attempt)
    if context.attempt < 3:
        raise RuntimeError(f"not yet: {context.attempt}")
    return {"attempt": context.attempt}
`;
const AT_ONCE = { initialBackoff: { nanos: 1_000_000 } };
const AN_HOUR = { seconds: 3600n };

test('an error of the code itself is not tried again by default', async () => {
  const execution = await execute(executions, code(FLAKY));
  expect(execution).toMatchObject({ state: State.FAILED, attempt: 1, error: { code: Code.HANDLER_ERROR } });
});

test('a policy that names the code tries again until it works; every attempt keeps its end and its log', async () => {
  const policy = { ...AT_ONCE, maxAttempts: 5, codes: [Code.HANDLER_ERROR] };
  const { id } = await execute(executions, { ...code(FLAKY), retryPolicy: policy });
  const execution = await get(executions, id);
  expect(execution).toMatchObject({ state: State.SUCCEEDED, attempt: 3, outputJson: '{"attempt":3}' });
  const failed = (number: number) => ({
    number,
    state: State.FAILED,
    error: { code: Code.HANDLER_ERROR, message: `RuntimeError: not yet: ${number}` },
  });
  const { agentId, startTime, endTime } = execution;
  expect(execution.attempts).toMatchObject([
    failed(1),
    failed(2),
    { number: 3, state: State.SUCCEEDED, agentId, startTime, endTime },
  ]);
  expect(execution.attempts[2]?.error).toBeUndefined();
  for (const attempt of [1, 2, 3]) {
    const { stdout } = await storedLog(executions, id, { attempt });
    expect(stdout.toString()).toBe(`attempt ${attempt}\n`);
  }
});

test('a watcher sees each attempt and its output in turn', async () => {
  const policy = { ...AT_ONCE, maxAttempts: 3, codes: [Code.HANDLER_ERROR] };
  const seen: string[] = [];
  for await (const { event } of executions.executeStream({ ...code(FLAKY), retryPolicy: policy })) {
    if (event.case === 'log') {
      const text = Buffer.from(event.value.data).toString();
      // A line may come in several pieces.
      if (seen.at(-1)?.startsWith(`${event.value.attempt}: `)) seen.push(`${seen.pop()}${text}`);
      else seen.push(`${event.value.attempt}: ${text}`);
    }
    if (event.case === 'state' && event.value.state === State.RUNNING) seen.push(`running ${event.value.attempt}`);
    if (event.case === 'result') seen.push(event.value.outputJson);
  }
  expect(seen).toEqual([
    ...[1, 2, 3].flatMap((attempt) => [`running ${attempt}`, `${attempt}: attempt ${attempt}\n`]),
    '{"attempt":3}',
  ]);
});

test('the last attempt decides when all fail', async () => {
  const policy = { ...AT_ONCE, maxAttempts: 2, codes: [Code.HANDLER_ERROR] };
  const { id } = await execute(executions, { ...code(FLAKY), retryPolicy: policy });
  const execution = await get(executions, id);
  expect(execution).toMatchObject({ state: State.FAILED, attempt: 2, error: { message: 'RuntimeError: not yet: 2' } });
  expect(execution.attempts).toMatchObject(
    [1, 2].map((number) => ({ number, state: State.FAILED, error: { message: `RuntimeError: not yet: ${number}` } })),
  );
});

test.each([
  ['EXIT_NONZERO', command('sh', '-c', 'exit 7'), State.FAILED],
  ['HANDLER_NOT_FOUND', code('x = 1'), State.FAILED],
  ['OUTPUT_INVALID', code('def handler(input):\n    return 5'), State.FAILED],
  ['TIMEOUT', { ...command('sleep', '60'), timeout: { nanos: 100_000_000 } }, State.TIMED_OUT],
  ['KILLED', command('sh', '-c', 'kill -9 $$'), State.FAILED],
] as const)('%s is tried again only when the policy names it', async (name, request, state) => {
  const policy = { ...AT_ONCE, maxAttempts: 2 };
  const error = { code: Code[name] };
  expect(await execute(executions, { ...request, retryPolicy: policy })).toMatchObject({ state, attempt: 1, error });
  const named = { ...policy, codes: [Code[name]] };
  expect(await execute(executions, { ...request, retryPolicy: named })).toMatchObject({ state, attempt: 2, error });
});

test('between attempts it waits for the backoff, says so, and can be cancelled', async () => {
  const policy = {
    maxAttempts: 2,
    initialBackoff: AN_HOUR,
    maxBackoff: AN_HOUR,
    jitterRatio: 0.5,
    codes: [Code.HANDLER_ERROR],
  };
  const id = await create(executions, { ...code(FLAKY), retryPolicy: policy });
  const waiting = await until('the first attempt to be over', async () => {
    const execution = await get(executions, id);
    return execution.state === State.PENDING && execution.attempt === 1 && execution;
  });
  expect(waiting).toMatchObject({
    state: State.PENDING,
    attempt: 1,
    waitingReason: expect.stringContaining('the next attempt is due at'),
  });
  const waitS = Number((waiting.nextAttemptTime?.seconds ?? 0n) - (waiting.createTime?.seconds ?? 0n));
  expect(waitS).toBeGreaterThanOrEqual(1800);
  expect(waitS).toBeLessThanOrEqual(3700);
  expect(waiting.attempts).toMatchObject([{ number: 1, state: State.FAILED }]);
  for await (const { event } of executions.watchExecution({ id })) {
    if (event.case !== 'state') continue;
    expect(event.value).toMatchObject({ state: State.PENDING, waitingReason: waiting.waitingReason });
    break;
  }
  await executions.cancelExecution({ id });
  const cancelled = await finished(executions, id);
  expect(cancelled).toMatchObject({ state: State.CANCELLED, attempt: 1 });
  expect(cancelled.attempts).toMatchObject([{ number: 1, state: State.FAILED }]);
});

test('the policy of the module holds where the request has none', async () => {
  const retryPolicy = { ...AT_ONCE, maxAttempts: 3, codes: [Code.HANDLER_ERROR] };
  await stack.modules.createModule({ module: { name: 'flaky', version: '1.0.0', code: FLAKY, retryPolicy } });
  expect(await execute(executions, moduleCall('flaky'))).toMatchObject({ state: State.SUCCEEDED, attempt: 3 });
  const never = { ...moduleCall('flaky'), retryPolicy: { maxAttempts: 1 } };
  expect(await execute(executions, never)).toMatchObject({ state: State.FAILED, attempt: 1 });
});
