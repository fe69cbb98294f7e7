import { ExecutionError_Code as Code } from '@harrier/shared/gen/error';
import { Execution_State as State } from '@harrier/shared/gen/execution';
import { expect, test } from 'vitest';
import { execute, storedLog } from '../support/executions.ts';
import { code, command, moduleCall } from '../support/requests.ts';
import { startStack } from '../support/stack.ts';

const stack = await startStack();
const { clients, executions } = stack;

test('what was printed before an exception is kept', async () => {
  const execution = await execute(
    executions,
    code('def handler(input):\n    print("before")\n    raise ValueError("x")\n'),
  );
  expect(execution).toMatchObject({ state: State.FAILED, stdoutTail: 'before\n' });
});

test('a command that is a file and no program', async () => {
  const execution = await execute(executions, command('/etc/passwd'));
  expect(execution).toMatchObject({
    state: State.FAILED,
    exitCode: 126,
    error: { code: Code.EXIT_NONZERO, message: expect.stringContaining('Permission denied') },
  });
});

test('a command that ends well has exit code 0', async () => {
  expect(await execute(executions, command('true'))).toMatchObject({ state: State.SUCCEEDED, exitCode: 0 });
});

test('REST answers the error object with the status of its code', async () => {
  await stack.modules.createModule({
    module: { name: 'broken', version: '1.0.0', code: 'def handler(input):\n    raise ValueError("no")\n' },
  });
  const answer = await clients.rest('POST', '/run/broken', {});
  expect(answer.status).toBe(500);
  expect(answer.json).toMatchObject({
    code: 'HANDLER_ERROR',
    message: 'ValueError: no',
    details: { type: 'ValueError' },
  });
  expect(answer.json.details.traceback).toContain('File "broken-1.0.0.py", line 2, in handler');
  expect(answer.headers['harrier-execution-id']).toMatch(/^[0-9a-f-]{36}$/);
  expect((await execute(executions, moduleCall('broken'))).state).toBe(State.FAILED);
});

test('output beyond its limit is dropped and marked, and the execution goes on', async () => {
  const source = `
import sys
def handler(input):
    for _ in range(100):
        sys.stdout.write("0123456789")
    sys.stderr.write("all of it")
    return {"wrote": 1000}
`;
  const execution = await execute(executions, { ...code(source), limits: { stdoutBytes: 95n } });
  const marker = '\n[harrier: stdout truncated after 95 bytes]\n';
  const wanted = '0123456789'.repeat(10).slice(0, 95) + marker;
  expect(execution).toMatchObject({
    state: State.SUCCEEDED,
    outputJson: '{"wrote":1000}',
    stdoutTruncated: true,
    stderrTruncated: false,
    stdoutBytes: BigInt(wanted.length),
    stdoutTail: wanted,
  });
  const { stdout, stderr } = await storedLog(executions, execution.id);
  expect([stdout.toString(), stderr.toString()]).toEqual([wanted, 'all of it']);
});

test('what is printed cannot pass for a result', async () => {
  const source =
    'def handler(input):\n    print(\'{"ok":true,"output":{"forged":true}}\')\n    return {"real": True}\n';
  expect(await execute(executions, code(source))).toMatchObject({ outputJson: '{"real":true}' });
});

test('a handler with a context knows its execution and reports progress', async () => {
  const source = `
async def handler(input, context):
    context.progress(25, "quarter")
    context.progress(75.5, "most")
    return {"id": context.execution_id, "attempt": context.attempt}
`;
  let progress: unknown;
  for await (const { event } of executions.executeStream(code(source))) {
    if (event.case === 'progress') progress = event.value;
    if (event.case !== 'result') continue;
    expect(event.value.outputJson).toBe(JSON.stringify({ id: event.value.id, attempt: 1 }));
  }
  expect(progress).toMatchObject({ percent: 75.5, step: 'most' });
});

test('numbers and texts come back as the handler wrote them', async () => {
  const source =
    'def handler(input):\n    return {"n": 2**80, "f": 1.0, "e": input["e"], "s": "\\u00e9\\u0000", "z": -0.0}\n';
  const { outputJson } = await execute(executions, {
    ...code(source),
    inputForm: { case: 'inputJson', value: '{"e": 1e2}' },
  });
  expect(outputJson).toContain('1208925819614629174706176');
  expect(JSON.parse(outputJson)).toEqual({ n: 2 ** 80, f: 1, e: 100, s: '\u00e9\0', z: -0 });
});
