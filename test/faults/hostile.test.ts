import { Code, ConnectError } from '@connectrpc/connect';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { Goodbye_Code as Goodbye } from '@harrier/shared/gen/link';
import { afterEach, expect, test } from 'vitest';
import { create as createExecution, execute } from '../support/executions.ts';
import { RawIdentity, RawLink } from '../support/raw-link.ts';
import { code } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';
import { until, within } from '../support/wait.ts';

const stack = await startStack();
const { controlPlane, executions } = stack;
const MIB = 1024 * 1024;

const sleeper = code('import time\ndef handler(input):\n    print("up", flush=True)\n    time.sleep(600)\n');

afterEach(async () => {
  // Whatever somebody did: the same control plane serves everybody else.
  expect(controlPlane.program.running).toBe(true);
  expect(await execute(executions, { ...code('def handler(input):\n    return {}\n') })).toMatchObject({
    state: State.SUCCEEDED,
  });
});

async function running(): Promise<string> {
  const id = await createExecution(executions, sleeper);
  await until('the code to run', async () => {
    const { execution } = await executions.getExecution({ id });
    return execution?.state === State.RUNNING ? id : undefined;
  });
  return id;
}

test('following an attempt that there is not yet is refused, and the follower leaves nothing behind', async () => {
  const id = await running();
  const watch = async () => {
    for await (const _ of executions.watchExecution({ id, attempt: 99 }));
  };
  const error = await watch().catch((thrown: unknown) => ConnectError.from(thrown));
  expect(error).toMatchObject({ code: Code.InvalidArgument });
  await executions.cancelExecution({ id });
});

test('followers that leave at their first event disturb nobody', async () => {
  const id = await running();
  for (let reader = 0; reader < 20; reader++) {
    const leave = new AbortController();
    try {
      for await (const _ of executions.watchExecution({ id }, { signal: leave.signal })) leave.abort();
    } catch (error) {
      expect(ConnectError.from(error).code).toBe(Code.Canceled);
    }
  }
  await executions.cancelExecution({ id });
});

test.each([
  ['labels', { labels: { ['界'.repeat(60)]: '' } }],
  ['an id', { agentId: '界'.repeat(64) }],
])('a stranger whose hello has %s in long characters is refused', async (_, hello) => {
  const link = RawLink.open(controlPlane.url);
  await link.sayHello(new RawIdentity(), hello);
  expect(await link.next('goodbye')).toMatchObject({ code: Goodbye.REFUSED });
  const { reason } = await within('the close of the link', link.closed);
  expect(Buffer.byteLength(reason)).toBeLessThanOrEqual(123);
});

test('what is too large for an agent to be told is refused before it is accepted', async () => {
  // Two bytes in the request become six in JSON: the request is small enough, the assignment is not.
  const input = { text: '\u0001'.repeat(MIB + MIB / 4) };
  const env = Object.fromEntries(Array.from({ length: 200 }, (_, n) => [`V${n}`, 'x'.repeat(32_000)]));
  await stack.modules.createModule({
    module: { name: 'large', version: '1.0.0', code: `#${'x'.repeat(3 * MIB)}\ndef handler(input):\n    return {}\n` },
  });
  const call = executions.execute({
    target: { case: 'module', value: 'large' },
    inputForm: { case: 'input', value: input },
    env,
  });
  const error = await call.catch((thrown: unknown) => ConnectError.from(thrown));
  expect(error).toMatchObject({ code: Code.InvalidArgument, rawMessage: expect.stringContaining('bytes together') });
});
